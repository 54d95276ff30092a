//! Whether what an exporter said may be taken in. All of it or nothing: what is refused is
//! refused before anything is written.

use std::collections::HashSet;
use std::hash::Hash;

use wire::{
    Entry, Event, HostReadings, Instance, JournalPage, Process, Readings, Record, Sample, State,
    Time,
};

use super::ahead::{AHEAD, Corrected, Future, forget_ahead, set_right};
use super::failure::{Failure, Reason};
use super::flood;
use crate::store::Cursor;

/// Entries that a page is asked for.
pub(super) const PAGE: usize = 1000;

const MAX_PROCESSES: usize = 1000;
const MAX_HOMES: usize = 64;
const MAX_TOKENS: usize = 256;
/// Longest path of a PM2's directory.
const MAX_PATH: usize = 4096;
const MAX_SLOTS: usize = 256;
const MAX_VARIABLES: usize = 1000;
const MAX_METRICS: usize = 128;
const MAX_MODES: usize = 32;
const MAX_DETAILS: usize = 32;
/// Longest name, unit or version, in bytes.
const MAX_NAME: usize = 255;
/// Longest line for people.
const MAX_MESSAGE: usize = 16 * 1024;
/// Longest detail of an event: a stack, for instance.
const MAX_DETAIL: usize = 64 * 1024;

/// All words of an event.
const MAX_EVENT: usize = 96 * 1024;
/// What the names of a server's processes and metrics may make of the poller's page of metrics.
const MAX_LABELS: usize = 16 << 20;
/// Series of a process beside its own metrics, roughly.
const SERIES: usize = 32;

/// What a page means once it is found good.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) cursor: Cursor,
    /// The journal has begun anew and does not go on from the cursor.
    pub(super) anew: bool,
    pub(super) page: JournalPage,
    /// What was done to entries of the future.
    pub(super) corrected: Option<Corrected>,
}

type Verdict = Result<(), Failure>;

/// # Errors
/// The page as a whole is refused.
pub(super) fn check(
    mut page: JournalPage,
    from: &Cursor,
    now: Time,
    future: Future,
) -> Result<Checked, Failure> {
    let new_epoch = page.journal.epoch != from.epoch;
    text("journal.epoch", &page.journal.epoch, MAX_NAME)?;
    if page.journal.epoch.is_empty() {
        return Err(Failure::new(Reason::Journal, "journal.epoch is empty"));
    }
    time("now", page.now, now)?;
    positions(&page, from, new_epoch)?;
    for entry in &page.entries {
        if future == Future::Refused {
            time("entries.time", entry.time, now)?;
        }
        record(entry)?;
    }
    if let Some(found) = &mut page.state {
        state(found, now)?;
        forget_ahead(found, now);
    }
    let cursor = Cursor { epoch: page.journal.epoch.clone(), after: page.after };
    let begin = page.after - page.entries.len() as u64;
    // At the very beginning the numbers alone do not tell.
    let anew = new_epoch && !from.epoch.is_empty() && (page.anew || begin != from.after);
    let corrected = match future {
        Future::Refused => None,
        Future::SetRight => set_right(&mut page.entries, now),
    };
    Ok(Checked { cursor, anew, page, corrected })
}

/// Numbers rise by one and lie within the journal. Within an epoch they begin right after the
/// cursor, or at the oldest entry kept. Where a new epoch begins is the exporter's to say: it
/// may go on with an earlier life of the same journal, or have nothing of it.
fn positions(page: &JournalPage, from: &Cursor, new_epoch: bool) -> Verdict {
    let wrong = |what: String| Err(Failure::new(Reason::Journal, what));
    limit("entries", page.entries.len(), PAGE)?;
    let (first, next) = (page.journal.first, page.journal.next);
    if first == 0 || first > next || next > i64::MAX as u64 {
        return wrong(format!("journal.first {first} and journal.next {next} do not fit together"));
    }
    let begin = if new_epoch {
        page.entries.first().map_or(page.after.saturating_add(1), |entry| entry.seq)
    } else {
        first.max(from.after.saturating_add(1))
    };
    if begin < first || begin > next {
        return wrong(format!("the page begins at {begin}, the journal is {first} to {next}"));
    }
    let mut expected = begin;
    for Entry { seq, .. } in &page.entries {
        if *seq != expected {
            return wrong(format!("entry {seq} where {expected} was expected"));
        }
        expected += 1;
    }
    if expected > next {
        return wrong(format!("entry {} is beyond journal.next {next}", expected - 1));
    }
    if page.after != expected - 1 {
        return wrong(format!("after is {} where {} was expected", page.after, expected - 1));
    }
    if page.more && page.entries.is_empty() {
        return wrong("more is true, and there is no entry".to_owned());
    }
    Ok(())
}

fn record(entry: &Entry) -> Verdict {
    match &entry.record {
        Record::Sample(found) => sample(found),
        Record::Event(found) => event(found),
    }
}

fn sample(sample: &Sample) -> Verdict {
    if let Some(found) = &sample.host {
        host(found)?;
    }
    let all = sample.processes.iter().map(|process| (&process.instance, &process.readings));
    processes(sample.processes.len(), all)
}

fn event(event: &Event) -> Verdict {
    text("event.message", &event.message, MAX_MESSAGE)?;
    text("event.namespace", event.namespace.as_deref().unwrap_or_default(), MAX_NAME)?;
    text("event.pm2_home", event.pm2_home.as_deref().unwrap_or_default(), MAX_PATH)?;
    text("event.signal", event.signal.as_deref().unwrap_or_default(), MAX_NAME)?;
    limit("event.details", event.details.len(), MAX_DETAILS)?;
    for (name, value) in &event.details {
        text("event.details", name, MAX_NAME)?;
        text("event.details", value, MAX_DETAIL)?;
    }
    limit("event, in bytes", flood::size(event), MAX_EVENT)
}

fn state(state: &State, now: Time) -> Verdict {
    time("state.time", state.time, now)?;
    let exporter = &state.exporter;
    for value in [&exporter.version, &exporter.hostname, &exporter.os, &exporter.arch] {
        text("state.exporter", value, MAX_NAME)?;
    }
    limit("state.exporter.token_expiries", exporter.token_expiries.len(), MAX_TOKENS)?;
    let mut tokens = HashSet::new();
    for token in &exporter.token_expiries {
        text("state.exporter.token_expiries", &token.name, MAX_NAME)?;
        unique("token", &token.name, tokens.insert(&token.name))?;
    }
    limit("state.homes", state.homes.len(), MAX_HOMES)?;
    let mut homes = HashSet::new();
    for home in &state.homes {
        unique("home", &home.home, homes.insert(&home.home))?;
    }
    for pm2 in state.homes.iter().chain([&state.pm2]) {
        text("state.pm2.home", &pm2.home, MAX_PATH)?;
        text("state.pm2.version", pm2.version.as_deref().unwrap_or_default(), MAX_NAME)?;
        text("state.pm2.error", pm2.error.as_deref().unwrap_or_default(), MAX_MESSAGE)?;
    }
    if let Some(found) = &state.host {
        host(found)?;
    }
    let all = state.processes.iter().map(|process| (&process.instance, &process.readings));
    processes(state.processes.len(), all)?;
    state.processes.iter().try_for_each(words)?;
    limit("labels of processes, in bytes", state.processes.iter().map(labels).sum(), MAX_LABELS)?;
    limit("state.slots", state.slots.len(), MAX_SLOTS)?;
    let mut seen = HashSet::new();
    for slot in &state.slots {
        unique("slot", &slot.slot, seen.insert(&slot.slot))?;
        for value in
            [&slot.foreign_owner, &slot.repository, &slot.branch, &slot.commit, &slot.deployed_by]
        {
            text("state.slots", value.as_deref().unwrap_or_default(), 2048)?;
        }
        let Some(more) = &slot.more else { continue };
        let owner = more.port_owner.as_ref().map(|owner| owner.command.as_str());
        text("state.slots.port_owner", owner.unwrap_or_default(), MAX_NAME)?;
        text("state.slots.url", &more.url, 2048)?;
        limit("state.slots.env_names", more.env_names.len(), MAX_VARIABLES)?;
        more.env_names
            .iter()
            .try_for_each(|name| text("state.slots.env_names", name, MAX_DETAIL))?;
    }
    Ok(())
}

/// Bytes that its names are, over all its series.
fn labels(process: &Process) -> usize {
    let Instance { name, namespace, pm2_home, .. } = &process.instance;
    let own = name.len() + namespace.len() + pm2_home.as_ref().map_or(0, |home| home.len());
    let custom = &process.readings.custom;
    let words: usize = custom.iter().map(|it| it.name.len() + it.unit.len()).sum();
    own * (SERIES + process.readings.node.len() + custom.len()) + words
}

/// Whether processes that an exporter tells of elsewhere are as they may be here.
pub(crate) fn are_good(all: &[Process]) -> bool {
    let each = all.iter().map(|process| (&process.instance, &process.readings));
    processes(all.len(), each).and_then(|()| all.iter().try_for_each(words)).is_ok()
}

fn words(process: &Process) -> Verdict {
    let words = [&process.exec_mode, &process.interpreter, &process.node_version, &process.version];
    for word in words {
        text("state.processes", word, MAX_NAME)?;
    }
    let signal = process.last_exit.as_ref().and_then(|exit| exit.signal.as_deref());
    text("state.processes.last_exit.signal", signal.unwrap_or_default(), MAX_NAME)
}

fn processes<'a>(count: usize, all: impl Iterator<Item = (&'a Instance, &'a Readings)>) -> Verdict {
    limit("processes", count, MAX_PROCESSES)?;
    let mut seen = Seen::default();
    for (instance, readings) in all {
        text("processes.namespace", &instance.namespace, MAX_NAME)?;
        text("processes.pm2_home", instance.pm2_home.as_deref().unwrap_or_default(), MAX_PATH)?;
        unique("process", instance, seen.insert(instance))?;
        measured(readings)?;
    }
    Ok(())
}

fn measured(readings: &Readings) -> Verdict {
    if let Some(value) = readings.cpu_seconds {
        positive("cpu_seconds", value)?;
    }
    limit("custom and Node.js metrics", readings.node.len() + readings.custom.len(), MAX_METRICS)?;
    for (name, value) in &readings.node {
        text("node", name, MAX_NAME)?;
        positive(name, *value)?;
    }
    let mut seen = Seen::default();
    for metric in &readings.custom {
        text("custom.name", &metric.name, MAX_NAME)?;
        text("custom.unit", &metric.unit, MAX_NAME)?;
        unique("custom metric", &metric.name, seen.insert((&metric.name, &metric.unit)))?;
        // An application's own metric may well be negative.
        if !metric.value.is_finite() {
            return Err(Failure::new(Reason::Value, format!("{:?} is not finite", metric.name)));
        }
    }
    Ok(())
}

fn host(host: &HostReadings) -> Verdict {
    limit("host.cpu_seconds", host.cpu_seconds.len(), MAX_MODES)?;
    let mut seen = Seen::default();
    for (mode, seconds) in &host.cpu_seconds {
        text("host.cpu_seconds", mode, MAX_NAME)?;
        unique("host.cpu_seconds", mode, seen.insert(mode))?;
        positive("host.cpu_seconds", *seconds)?;
    }
    positive("host.load1", host.load1.unwrap_or_default())
}

/// What was there before. A server mostly has few of anything: these are compared, which is
/// quicker than to hash them.
struct Seen<T> {
    few: [Option<T>; 12],
    more: HashSet<T>,
}

impl<T: Copy + Eq + Hash> Default for Seen<T> {
    fn default() -> Self {
        Self { few: [None; 12], more: HashSet::new() }
    }
}

impl<T: Copy + Eq + Hash> Seen<T> {
    /// Whether it is new.
    fn insert(&mut self, new: T) -> bool {
        for place in &mut self.few {
            match place {
                Some(known) if *known == new => return false,
                Some(_) => {}
                None => {
                    *place = Some(new);
                    return true;
                }
            }
        }
        self.more.insert(new)
    }
}

fn limit(what: &str, count: usize, most: usize) -> Verdict {
    if count <= most {
        return Ok(());
    }
    Err(Failure::new(Reason::Limits, format!("{what}: {count}, at most {most} are allowed")))
}

fn text(what: &str, text: &str, most: usize) -> Verdict {
    if text.len() <= most {
        return Ok(());
    }
    let message = format!("{what}: {} bytes, at most {most} are allowed", text.len());
    Err(Failure::new(Reason::Limits, message))
}

fn unique(what: &str, name: &dyn std::fmt::Display, is_new: bool) -> Verdict {
    if is_new {
        return Ok(());
    }
    Err(Failure::new(Reason::Malformed, format!("{what} {name} is there twice")))
}

fn positive(what: &str, value: f64) -> Verdict {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(Failure::new(Reason::Value, format!("{what} is {value}, expected 0 or more")))
}

fn time(what: &str, time: Time, now: Time) -> Verdict {
    let ahead = time.millis_since(now);
    if ahead <= AHEAD {
        return Ok(());
    }
    let message = format!(
        "{what} is {} s in the future: the server's clock is ahead of the poller's",
        ahead / 1000
    );
    Err(Failure::new(Reason::FutureTime, message))
}

#[cfg(test)]
mod tests;
