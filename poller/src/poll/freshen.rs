//! The newest readings into the state that is shown, in place: names and metrics are the same ones
//! in nearly every sample, and only what is new of them is made anew.

use std::sync::Arc;

use wire::{HostReadings, JournalPage, Readings, Record, Sample, SampledProcess, State, Time};

/// Gives a state the readings of a page's newest sample.
pub(super) fn freshen(state: &mut Arc<State>, page: &JournalPage) {
    let newest = page.entries.iter().rev().find_map(|entry| match &entry.record {
        Record::Sample(sample) => Some((entry.time, sample)),
        Record::Event(_) => None,
    });
    // A server whose clock was set back would otherwise show old readings until it is as late
    // again.
    let set_back = page.now < state.time;
    let newer = |(time, _): &(Time, &Sample)| set_back || *time >= state.time;
    let Some((time, sample)) = newest.filter(newer) else { return };
    let changed = Arc::make_mut(state);
    changed.time = time;
    changed.journal.first = page.journal.first;
    changed.journal.next = page.journal.next;
    if changed.journal.epoch != page.journal.epoch {
        changed.journal.epoch.clone_from(&page.journal.epoch);
    }
    match (&mut changed.host, &sample.host) {
        (Some(known), Some(read)) => host(known, read),
        (known @ None, Some(read)) => *known = Some(read.clone()),
        (_, None) => {}
    }
    // Both are in the same order unless something changed in between.
    for (at, process) in changed.processes.iter_mut().enumerate() {
        let same = |read: &&SampledProcess| read.instance == process.instance;
        let read = sample.processes.get(at).filter(same);
        if let Some(read) = read.or_else(|| sample.processes.iter().find(same)) {
            readings(&mut process.readings, &read.readings);
        }
    }
}

fn readings(known: &mut Readings, read: &Readings) {
    let mut node = std::mem::take(&mut known.node);
    if node.len() == read.node.len() && node.keys().eq(read.node.keys()) {
        for (value, read) in node.values_mut().zip(read.node.values()) {
            *value = *read;
        }
    } else {
        node.clone_from(&read.node);
    }
    let mut custom = std::mem::take(&mut known.custom);
    let same = |(known, read): (&wire::CustomMetric, &wire::CustomMetric)| {
        known.name == read.name && known.unit == read.unit
    };
    if custom.len() == read.custom.len() && custom.iter().zip(&read.custom).all(same) {
        for (known, read) in custom.iter_mut().zip(&read.custom) {
            known.value = read.value;
        }
    } else {
        custom.clone_from(&read.custom);
    }
    *known = Readings { node, custom, ..*read };
}

fn host(known: &mut HostReadings, read: &HostReadings) {
    let modes = &read.cpu_seconds;
    let mut cpu_seconds = std::mem::take(&mut known.cpu_seconds);
    if cpu_seconds.iter().map(|(mode, _)| mode).eq(modes.iter().map(|(mode, _)| mode)) {
        for ((_, seconds), (_, read)) in cpu_seconds.iter_mut().zip(modes) {
            *seconds = *read;
        }
    } else {
        cpu_seconds.clone_from(modes);
    }
    *known = HostReadings { cpu_seconds, ..*read };
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::CustomMetric;

    #[test]
    fn in_place_or_anew_readings_become_those_that_were_read() {
        let read = |names: &[&str], value: f64| Readings {
            cpu_seconds: Some(value),
            memory_bytes: Some(value as u64),
            threads: None,
            open_fds: Some(3),
            log_out_bytes: Some(4),
            log_err_bytes: None,
            node: names.iter().map(|name| ((*name).into(), value)).collect(),
            custom: names
                .iter()
                .map(|name| CustomMetric { name: (*name).into(), value, unit: "u".into() })
                .collect(),
        };
        let mut known = Readings::default();
        for new in [
            read(&["a", "b"], 1.0),
            read(&["a", "b"], 2.0),
            read(&["a", "c"], 3.0),
            read(&["a"], 4.0),
            read(&[], 5.0),
        ] {
            readings(&mut known, &new);
            assert_eq!(known, new);
        }
    }

    #[test]
    fn in_place_or_anew_a_machine_becomes_what_was_read() {
        let read = |modes: &[&str], value: f64| HostReadings {
            cpu_seconds: modes.iter().map(|mode| ((*mode).into(), value)).collect(),
            cpus: Some(2),
            memory_total_bytes: Some(value as u64),
            memory_available_bytes: None,
            load1: Some(value),
            filesystem_size_bytes: None,
            filesystem_avail_bytes: Some(7),
            booted_at: Some(Time::from_millis(9)),
        };
        let mut known = HostReadings::default();
        for new in [read(&["user"], 1.0), read(&["user"], 2.0), read(&["user", "idle"], 3.0)] {
            host(&mut known, &new);
            assert_eq!(known, new);
        }
    }
}
