use std::collections::BTreeMap;

use exposition::alerts as a;
use wire::{HostReadings, Instance, Process, RestartCause, Slot, SlotId, State, Status, Time};

use super::rise::Rise;
use super::trend::Trend;
use super::{DAY, HOUR, MINUTE, SECOND, Seen, certificate, finding, span, token, window};
use crate::notify::alert::{Finding, Key};

/// Crashes of one process, and restarts of a server's processes, within ten minutes.
const CRASHES: u64 = 3;
const STORM: u64 = 20;
/// A clock that is off by more than this many milliseconds is wrong.
const CLOCK_OFF: i64 = 30 * SECOND;
/// What is stopped for so long was stopped by somebody.
const STOPPED: i64 = MINUTE;
/// Slower than this, in seconds at the 95th percentile, is slow.
const SLOW: f64 = 0.2;
/// Less of the disk than this is nearly none; with more than this nobody worries of a trend.
const NEARLY_FULL: f64 = 0.05;
const ROOMY: f64 = 0.4;
/// A process is judged by its growth only when it has run for so long.
const SETTLED: i64 = 5 * HOUR / 2;

#[derive(Debug)]
struct ProcessMemory {
    /// Crashes and ends for want of memory.
    crashes: Rise,
    /// Restarts of known causes.
    restarts: Rise,
    memory: Trend,
    /// Since when every look has found it stopped.
    stopped: Option<Time>,
}

/// What is remembered of a server.
#[derive(Debug)]
pub(super) struct ServerMemory {
    known_since: Time,
    /// Since when it has been heard of, in this life of the program.
    watched: Option<Time>,
    answers: bool,
    polled: bool,
    has_certificate: bool,
    lost: Rise,
    disk: Trend,
    processes: BTreeMap<Instance, ProcessMemory>,
    /// Crashes from before this life of the program, of processes that were not seen yet.
    past: BTreeMap<Instance, Vec<Time>>,
    failed_deploys: BTreeMap<SlotId, Rise>,
}

impl ServerMemory {
    pub(super) fn new(now: Time, past: BTreeMap<Instance, Vec<Time>>) -> Self {
        Self {
            past,
            known_since: now,
            watched: None,
            answers: false,
            polled: false,
            has_certificate: false,
            lost: Rise::new(window(a::JOURNAL_LOST.name), now, 0),
            disk: Trend::new(6 * HOUR),
            processes: BTreeMap::new(),
            failed_deploys: BTreeMap::new(),
        }
    }

    pub(super) fn look(&mut self, now: Time, seen: &Seen<'_>, findings: &mut Vec<Finding>) {
        self.polled = seen.polled;
        self.answers = seen.answers;
        self.has_certificate = seen.certificate.is_some();
        let id = seen.id.as_str();
        if seen.polled && !seen.answers {
            let silence = match seen.last_success {
                Some(time) => {
                    format!("has not answered for {}", span(seen.day.millis_since(time).max(0)))
                }
                None => "has never answered".to_owned(),
            };
            let why = seen.failure.unwrap_or("its answer is too old");
            let said = format!(
                "The exporter of {id} {silence}: {why}. Nothing is known of its processes \
                 meanwhile; they may well run."
            );
            findings.push(finding(&a::SERVER_DOWN, seen, &[], said));
        }
        if let Some(said) = seen.certificate.and_then(|end| certificate(seen.day, id, end)) {
            findings.push(finding(&a::CERTIFICATE, seen, &[], said));
        }
        self.lost.note(now, seen.lost);
        if self.lost.by() > 0 {
            let said = format!(
                "{} entries of the journal of {id} were overwritten within 30 minutes before the \
                 poller had read them. The history has a hole there.",
                self.lost.by()
            );
            findings.push(finding(&a::JOURNAL_LOST, seen, &[], said));
        }
        let Some(state) = seen.state else { return };
        if !seen.answers {
            // What is kept of an earlier life says from where counters rise.
            if let Some(then) = seen.last_success
                && self.watched.is_none()
                && self.processes.is_empty()
            {
                let ago = seen.day.millis_since(then).max(0);
                self.note(now.plus_millis(-ago), state);
            }
            return;
        }
        self.watched.get_or_insert(now);
        self.note(now, state);
        if let Some(ahead) = seen.clock_ahead.filter(|ahead| ahead.abs() > CLOCK_OFF) {
            let how = if ahead > 0 { "ahead of" } else { "behind" };
            let said = format!(
                "The clock of {id} is {} s {how} the poller's. The times of its events and of its \
                 history are off by as much.",
                ahead.abs() / SECOND
            );
            findings.push(finding(&a::CLOCK, seen, &[], said));
        }
        self.daemons(seen, state, findings);
        self.disk(now, seen, state, findings);
        for end in &state.exporter.token_expiries {
            if let Some(said) = token(seen.day, id, &end.name, end.expires_at) {
                findings.push(finding(&a::TOKEN, seen, &[("token", &end.name)], said));
            }
        }
        let mut restarts = 0;
        for process in &state.processes {
            restarts += self.process(now, seen, process, state.host.as_ref(), findings);
        }
        if restarts > STORM {
            let said = format!(
                "{restarts} restarts on {id} within 10 minutes, all processes and known causes \
                 together."
            );
            findings.push(finding(&a::RESTART_STORM, seen, &[], said));
        }
        for slot in &state.slots {
            self.slot(seen, slot, findings);
        }
    }

    /// Takes counters and readings.
    fn note(&mut self, now: Time, state: &State) {
        let known = |instance: &Instance| state.processes.iter().any(|it| it.instance == *instance);
        if self.processes.len() > state.processes.len() {
            self.processes.retain(|instance, _| known(instance));
        }
        for process in &state.processes {
            let counts = &process.restarts;
            let crashes = counts.crash.saturating_add(counts.oom);
            let restarts = counts.total().saturating_sub(counts.get(RestartCause::Unknown));
            let past = &mut self.past;
            let new = || {
                let minutes = window(a::CRASH_LOOP.name);
                let before = past.remove(&process.instance).unwrap_or_default();
                ProcessMemory {
                    crashes: Rise::after(minutes, now, crashes, &before),
                    restarts: Rise::new(minutes, now, restarts),
                    memory: Trend::new(2 * HOUR),
                    // That it was so before, nobody can say otherwise.
                    stopped: Some(now.plus_millis(-STOPPED)),
                }
            };
            // Names are made anew for what is new only.
            let memory = match self.processes.get_mut(&process.instance) {
                Some(memory) => memory,
                None => self.processes.entry(process.instance.clone()).or_insert_with(new),
            };
            memory.stopped = match process.status {
                Status::Stopped => memory.stopped.or(Some(now)),
                _ => None,
            };
            memory.crashes.note(now, crashes);
            memory.restarts.note(now, restarts);
            if let Some(bytes) = process.readings.memory_bytes {
                memory.memory.note(now, bytes as f64);
            }
        }
        self.failed_deploys.retain(|id, _| state.slots.iter().any(|slot| slot.slot == *id));
        for slot in &state.slots {
            let failed = slot.more.as_ref().map_or(0, |more| more.deploys_failed);
            self.failed_deploys
                .entry(slot.slot.clone())
                .or_insert_with(|| Rise::new(window(a::DEPLOY_FAILED.name), now, failed))
                .note(now, failed);
        }
        if let Some(free) = state.host.as_ref().and_then(|host| host.filesystem_avail_bytes) {
            self.disk.note(now, free as f64);
        }
    }

    fn daemons(&self, seen: &Seen<'_>, state: &State, findings: &mut Vec<Finding>) {
        let id = seen.id;
        let several = !state.homes.is_empty();
        for pm2 in state.pm2_homes().iter().filter(|pm2| !pm2.up) {
            let (labels, whose) = match several {
                true => (vec![("pm2_home", pm2.home.as_str())], format!(" of {}", pm2.home)),
                false => (Vec::new(), String::new()),
            };
            let said = format!(
                "The exporter of {id} runs and does not reach the PM2 daemon{whose}: {}. Without \
                 the daemon no process there is restarted when it ends.",
                pm2.error.as_deref().unwrap_or("no answer")
            );
            findings.push(finding(&a::DAEMON_DOWN, seen, &labels, said));
        }
        let homes = state.pm2_homes().iter();
        let drift: u32 = homes
            .map(|pm2| pm2.dump_missing.unwrap_or(0).saturating_add(pm2.dump_extra.unwrap_or(0)))
            .fold(0, u32::saturating_add);
        if drift > 0 {
            let said = format!(
                "{drift} processes of {id} are either running and not in dump.pm2, or in dump.pm2 \
                 and not running. After a reboot other processes would run than now."
            );
            findings.push(finding(&a::DUMP_DRIFT, seen, &[], said));
        }
    }

    fn disk(&self, now: Time, seen: &Seen<'_>, state: &State, findings: &mut Vec<Finding>) {
        let Some(HostReadings {
            filesystem_avail_bytes: Some(free),
            filesystem_size_bytes: Some(size @ 1..),
            ..
        }) = state.host
        else {
            return;
        };
        let share = free as f64 / size as f64;
        let line = self.disk.line(now).filter(|_| self.disk.spans(now, 3 * HOUR));
        let full_soon = line.is_some_and(|(value, slope)| value + slope * (DAY as f64) < 0.0);
        if share < NEARLY_FULL || (share < ROOMY && full_soon) {
            let said = format!(
                "{:.1} % of the file system that holds PM2's directory on {} is free, and it is \
                 below 5 % or will be full within 24 hours. PM2's logs are there unless an app \
                 names other files.",
                share * 100.0,
                seen.id
            );
            findings.push(finding(&a::LOG_DISK, seen, &[], said));
        }
    }

    /// Gives how often it was restarted within ten minutes.
    fn process(
        &self,
        now: Time,
        seen: &Seen<'_>,
        process: &Process,
        host: Option<&HostReadings>,
        findings: &mut Vec<Finding>,
    ) -> u64 {
        let Some(memory) = self.processes.get(&process.instance) else { return 0 };
        let Instance { name, namespace, instance_id, pm2_home } = &process.instance;
        // Words are made for what is wrong: hardly anything is.
        let who =
            || format!("nstance {instance_id} of {name} (namespace {namespace}) on {}", seen.id);
        let mut tell = |alert, said| {
            let number = instance_id.to_string();
            let mut labels =
                vec![("namespace", &**namespace), ("name", &**name), ("instance_id", &*number)];
            labels.extend(pm2_home.as_deref().map(|home| ("pm2_home", home)));
            findings.push(finding(alert, seen, &labels, said));
        };
        if process.status == Status::Errored {
            let said =
                format!("I{} is errored. It does not run, and PM2 will not start it again.", who());
            tell(&a::ERRORED, said);
        }
        let crashes = memory.crashes.by();
        // A quick loop is stopped at every other look, and nobody stopped it.
        let stopped = memory.stopped.is_some_and(|since| now.millis_since(since) >= STOPPED);
        if crashes >= CRASHES && !stopped {
            let said = format!(
                "I{} crashed or ran out of memory {crashes} times within 10 minutes.",
                who()
            );
            tell(&a::CRASH_LOOP, said);
        }
        if let Some(latency) = process.readings.node.get("event_loop_latency_p95")
            && *latency > SLOW
        {
            let said = format!(
                "Work in i{} waits {:.0} ms for the event loop (95th percentile). Every request \
                 to it waits that long.",
                who(),
                latency * 1000.0
            );
            tell(&a::EVENT_LOOP, said);
        }
        let settled = process.started_at.is_some_and(|at| seen.day.millis_since(at) > SETTLED);
        if settled
            && memory.memory.spans(now, 2 * HOUR)
            && let Some((_, slope)) = memory.memory.line(now)
            && let Some(room) = host.and_then(|host| host.memory_available_bytes)
            && slope * (4 * HOUR) as f64 > room as f64
        {
            let said = format!(
                "I{} would grow by {:.0} MiB within 4 hours at the pace of the last two. The \
                 host has {} MiB left.",
                who(),
                slope * (4 * HOUR) as f64 / 1_048_576.0,
                room >> 20
            );
            tell(&a::MEMORY_GROWTH, said);
        }
        memory.restarts.by()
    }

    fn slot(&self, seen: &Seen<'_>, slot: &Slot, findings: &mut Vec<Finding>) {
        let (id, name) = (seen.id, slot.slot.as_str());
        let mut tell = |alert, said| findings.push(finding(alert, seen, &[("slot", name)], said));
        if !slot.serving && slot.status != Some(Status::Stopped) {
            let said = format!(
                "Port {} of slot {name} on {id} accepts no connection, and nobody stopped the slot.",
                slot.port
            );
            tell(&a::SLOT_NOT_SERVING, said);
        }
        if let Some(stranger) = &slot.foreign_owner {
            let said = format!(
                "{stranger}, a process other than {}, holds port {} of slot {name} on {id}. \
                 Whoever asks the slot gets that process's answers.",
                slot.process, slot.port
            );
            tell(&a::SLOT_PORT_TAKEN, said);
        }
        let failed = self.failed_deploys.get(&slot.slot).map_or(0, Rise::by);
        if failed > 0 {
            let said = format!(
                "Deployments to slot {name} on {id} that failed within 15 minutes: {failed}. The \
                 slot runs what it ran before."
            );
            tell(&a::DEPLOY_FAILED, said);
        }
    }

    /// Whether nothing can be said of it now.
    pub(super) fn is_blind(&self, key: &Key) -> bool {
        match key.alert.as_str() {
            name if name == a::SERVER_DOWN.name => !self.polled,
            name if name == a::CERTIFICATE.name => !self.has_certificate,
            name if name == a::JOURNAL_LOST.name => false,
            _ => !self.answers,
        }
    }

    /// Whether it was not watched for long enough to say that it is over.
    pub(super) fn is_young(&self, now: Time, key: &Key) -> bool {
        let since = match key.alert.as_str() {
            name if name == a::JOURNAL_LOST.name => Some(self.known_since),
            _ => self.watched,
        };
        let young = since.is_none_or(|since| now.millis_since(since) < window(&key.alert));
        young && self.is_there(key)
    }

    /// Whether the process of a key, if it is of one, is there still.
    fn is_there(&self, key: &Key) -> bool {
        let Some(name) = key.label("name") else { return true };
        self.processes.keys().any(|instance| {
            instance.name.as_str() == name
                && Some(&*instance.namespace) == key.label("namespace")
                && Some(&*instance.instance_id.to_string()) == key.label("instance_id")
                && instance.pm2_home.as_deref() == key.label("pm2_home")
        })
    }
}
