//! PM2's own list, applied: what the bus did not tell is found here.

use std::time::Duration;

use wire::{Event, EventKind, Instance, RestartCause, Severity, Status, Time};

use super::{End, KILL_TAKES, MAX_LEDGERS, Outcome, Row, Table, Undecided, deleted, event_of};
use crate::pm2::custom::NodeMetrics;
use crate::pm2::model::{Kept, Listed};

impl Table {
    /// PM2's list, asked for when `heard` bus events had been applied.
    pub fn list(&mut self, list: Vec<Listed>, heard: u64, now: Time) -> Outcome {
        let mut outcome = Outcome::default();
        let mut list = list;
        list.retain(|listed| self.filter.takes(&listed.name, listed.is_module));
        let gone: Vec<u32> = self
            .rows
            .values()
            .filter(|row| row.touched <= heard)
            .filter(|row| {
                let pm_id = row.listed.pm_id;
                !list.iter().any(|listed| listed.pm_id == pm_id && row.is_of(listed))
            })
            .map(|row| row.listed.pm_id)
            .collect();
        self.deleted.retain(|(at, _)| now.millis_since(*at) < KILL_TAKES);
        for pm_id in gone {
            if let Some(row) = self.rows.remove(&pm_id) {
                self.deleted.push((now, row.instance.clone()));
                outcome.events.push((now, deleted(&row)));
                outcome.changed = true;
                outcome.drifted = true;
            }
        }
        let mut back = Vec::new();
        for listed in list {
            match self.rows.get_mut(&listed.pm_id) {
                None => {
                    outcome.changed = true;
                    // One that is being started is about to be told.
                    outcome.drifted |= listed.status != Status::Launching;
                    let missed = self.insert_listed(listed, heard);
                    outcome.events.extend(missed.map(|event| (now, event)));
                }
                Some(row) if row.touched > heard && !row.is_followed_by(&listed) => {
                    // The bus told of it after the list was made: the bus is right.
                    row.listed.metrics = listed.metrics;
                    row.listed.kept = listed.kept;
                    outcome.list_within = Some(Duration::from_secs(1));
                }
                Some(row) => {
                    // A process that is being started has its new start time already; the bus
                    // tells of it when it is online.
                    let starting = listed.status == Status::Launching;
                    let unseen = !starting && listed.started_at > row.listed.started_at;
                    let mut is_back = false;
                    let ledger = self.ledgers.get_mut(&row.instance);
                    if row.end == End::Asked && listed.status == Status::Stopped {
                        row.end = End::Stopped;
                    }
                    let listed = match starting {
                        true => Listed { started_at: row.listed.started_at, ..listed },
                        false => listed,
                    };
                    if row.undecided == Undecided::Asked
                        && let Some(ledger) = ledger
                    {
                        row.undecided = Undecided::Not;
                        ledger.restarts.add(RestartCause::Manual, 1);
                        self.counted = true;
                    } else if unseen && row.end != End::Not {
                        // Its end was told, and the bus is about to tell of its start.
                        is_back = true;
                        back.push(listed.pm_id);
                    } else if unseen && let Some(ledger) = ledger {
                        let more = listed.restart_time.saturating_sub(row.listed.restart_time);
                        ledger.restarts.add(RestartCause::Unknown, more.max(1));
                        ledger.last_start = listed.started_at;
                        ledger.restart_time = listed.restart_time;
                        self.counted = true;
                        outcome.events.push((now, unseen_restart(row, more.max(1))));
                        row.end = End::Not;
                        outcome.drifted = true;
                    }
                    let ran = row.listed.status.has_process();
                    outcome.drifted |= !starting && !is_back && ran != listed.status.has_process();
                    outcome.changed |= differ(&row.listed, &listed);
                    row.listed = listed;
                }
            }
        }
        for pm_id in back {
            self.came_online(pm_id, now, false, false, &mut outcome);
            outcome.list_within = Some(Duration::from_millis(400));
        }
        self.tell_apart(|row| row.touched <= heard || !row.may_be_gone());
        self.known = true;
        outcome
    }

    /// Gives what is to be told of it: that it was started anew while nobody looked.
    fn insert_listed(&mut self, listed: Listed, heard: u64) -> Option<Event> {
        let (start, restart_time) = (listed.started_at, listed.restart_time);
        let (pm_id, runs) = (listed.pm_id, listed.status == Status::Online);
        let least = u64::from(listed.autorestart);
        let has_process = listed.status.has_process();
        // What the list does not have was taken out before.
        let there = |row: &Row| row.touched <= heard || !row.may_be_gone();
        let instance = self.insert(listed, there)?;
        if !has_process && let Some(row) = self.rows.get_mut(&pm_id) {
            row.end = End::Stopped;
        }
        // What ran before the first list is known from that, however late the bus tells of its start.
        if !self.known
            && runs
            && let Some(row) = self.rows.get_mut(&pm_id)
        {
            row.told_start = start;
        }
        // Otherwise it is a new one, and the bus tells of its start.
        let was_orphaned = self.orphans.remove(&instance);
        let unseen = was_orphaned || !self.known;
        let ledger = self.ledgers.get_mut(&instance)?;
        if ledger.last_start == start {
            return None;
        }
        // Started while nobody looked: before the first look, or while the daemon or this
        // program was away. PM2's own counter says how often, unless it began anew. A job that it
        // does not start again by itself was merely started, as far as that says.
        let more = match ledger.last_start {
            Some(_) if unseen => restart_time.saturating_sub(ledger.restart_time).max(least),
            _ => restart_time,
        };
        // That a new daemon has it is told by the daemon's own coming.
        let goes_on = !was_orphaned || restart_time > ledger.restart_time;
        let tells = ledger.last_start.is_some() && !self.known && goes_on && more > 0;
        ledger.restarts.add(RestartCause::Unknown, more);
        ledger.last_start = start;
        ledger.restart_time = restart_time;
        self.counted = true;
        let row = self.rows.get(&pm_id).filter(|_| tells)?;
        Some(unseen_restart(row, more))
    }

    /// Gives a new process the lowest number that no other of its name has of which `there` says
    /// that PM2 has it.
    pub(super) fn insert(
        &mut self,
        listed: Listed,
        there: impl Fn(&Row) -> bool,
    ) -> Option<Instance> {
        let taken: Vec<u32> = self
            .rows
            .values()
            .filter(|row| row.is_of(&listed) && there(row))
            .map(|row| row.instance.instance_id)
            .collect();
        let instance_id = (0..).find(|number| !taken.contains(number))?;
        let (name, namespace) = (listed.name.clone(), listed.namespace.clone());
        let instance = Instance { name, namespace, instance_id, pm2_home: self.home.clone() };
        if self.ledgers.len() >= MAX_LEDGERS && !self.ledgers.contains_key(&instance) {
            let used: Vec<Instance> = self.rows.values().map(|row| row.instance.clone()).collect();
            self.ledgers.retain(|instance, _| used.contains(instance));
        }
        self.ledgers.entry(instance.clone()).or_default().looked = [false; 2];
        let row = Row {
            end: End::Not,
            instance: instance.clone(),
            undecided: Undecided::Not,
            told_end_of: None,
            told_start: None,
            gave_up: false,
            touched: 0,
            listed,
        };
        self.rows.insert(row.listed.pm_id, row);
        Some(instance)
    }
}

/// That it was restarted so often while nobody looked.
fn unseen_restart(row: &Row, times: u64) -> Event {
    let mut missed = event_of(row, EventKind::RESTART, Severity::Warning);
    let often = if times == 1 { String::new() } else { format!(", {times} times") };
    missed.message = format!("{} was restarted unseen{often}", row.instance.name);
    missed.cause = Some(RestartCause::Unknown);
    missed
}

/// Whether anything but metrics differs.
fn differ(a: &Listed, b: &Listed) -> bool {
    let plain = |listed: &Listed| Listed {
        metrics: NodeMetrics::default(),
        kept: Kept::default(),
        ..listed.clone()
    };
    plain(a) != plain(b)
}
