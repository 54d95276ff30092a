//! What a process and its machine would be read to use at a moment: a function of the seed and
//! the moment alone.

use std::collections::BTreeMap;
use std::f64::consts::TAU;

use wire::{CustomMetric, HostReadings, Readings, Time};

use super::noise::{between, part};

/// A wave of this period (in seconds) around 0, between -1 and 1.
fn wave(seed: u64, at: f64, period: f64) -> f64 {
    (TAU * (at / period + part(seed, 0x77))).sin()
}

/// Of a process that was started at `since`.
pub(super) fn process(seed: u64, is_node: bool, since: Time, at: Time) -> Readings {
    let age = at.millis_since(since).max(0) as f64 / 1000.0;
    let seconds = at.as_seconds();
    let tick = at.as_millis().unsigned_abs() / 1000;
    if !is_node {
        // The placeholder: next to nothing.
        return Readings {
            cpu_seconds: Some(rounded(0.004 + age * 0.0002, 100.0)),
            memory_bytes: Some((3 << 20) + 4096 * between(seed, 1, 0, 60)),
            threads: Some(1),
            open_fds: Some(9),
            log_out_bytes: Some(214),
            log_err_bytes: Some(0),
            ..Readings::default()
        };
    }
    let load = 0.02 + 0.2 * part(seed, 2);
    // The integral of a load that rises and falls over ten minutes: it never falls itself.
    let period = 600.0;
    let swing = 0.8 * load * period / TAU;
    let used = load * age + swing * (1.0 - (TAU * age / period).cos());
    // The heap grows until it is collected; noise makes no two alike.
    let round = 40.0 + 60.0 * part(seed, 3);
    let filled = (age / round).fract();
    let heap = (18.0 + 14.0 * filled + 2.0 * part(seed, tick)) * 1_048_576.0;
    let heap_size = (40 + between(seed, 4, 0, 12)) << 20;
    let rate = ((20.0 + 180.0 * part(seed, 5)) * (1.0 + 0.6 * wave(seed, seconds, 900.0))
        + 4.0 * part(seed, tick ^ 0xa5))
        * load;
    let lag = 0.0004 + 0.002 * part(seed, tick ^ 0x10) + 0.004 * load;
    let latency = 0.003 + 0.01 * part(seed, tick ^ 0x20);
    let mut node = BTreeMap::new();
    for (name, value) in [
        ("active_handles", between(seed, tick ^ 1, 3, 12) as f64),
        ("active_requests", between(seed, tick ^ 2, 0, 2) as f64),
        ("event_loop_latency", rounded(lag, 1e5)),
        ("event_loop_latency_p95", rounded(lag * 2.7, 1e5)),
        ("heap_size", heap_size as f64),
        ("heap_used", rounded(heap, 0.01)),
        ("http_latency", rounded(latency, 1e3)),
        ("http_latency_p95", rounded(latency * 4.0, 1e3)),
        ("http_rate", rounded(rate, 100.0)),
    ] {
        node.insert(name.into(), value);
    }
    let resident = (48.0 + 10.0 * part(seed, 6)) * 1_048_576.0
        + heap * 0.6
        + age.min(86_400.0) * 20.0
        + 1_048_576.0 * wave(seed, seconds, 333.0);
    Readings {
        cpu_seconds: Some(rounded(used, 100.0)),
        memory_bytes: Some(resident as u64 / 4096 * 4096),
        threads: Some(11),
        open_fds: Some(20 + between(seed, tick ^ 3, 0, 9) as u32),
        log_out_bytes: Some((age * load * 900.0) as u64),
        log_err_bytes: Some((age / 60.0) as u64 * 81),
        node,
        custom: vec![CustomMetric {
            name: "Heap Usage".into(),
            value: rounded(100.0 * heap / heap_size as f64, 100.0),
            unit: "%".into(),
        }],
    }
}

/// Of a machine of two cores that was started at `booted`.
pub(super) fn host(seed: u64, booted: Time, at: Time) -> HostReadings {
    let up = at.millis_since(booted).max(0) as f64 / 1000.0;
    let seconds = at.as_seconds();
    let load = 0.15 + 0.2 * part(seed, 11);
    // What is used rises and falls over hours, as its integral does that no counter falls.
    let period = 5_400.0 + 3_600.0 * part(seed, 12);
    let swing = 0.6 * load * period / TAU * (1.0 - (TAU * (up / period)).cos());
    let modes = [
        ("user", load * 0.7 * up + swing),
        ("nice", 0.0),
        ("system", load * 0.25 * up),
        ("idle", (2.0 - load) * up - swing),
        ("iowait", load * 0.04 * up),
        ("irq", 0.0),
        ("softirq", load * 0.01 * up),
        ("steal", 0.0),
    ];
    let total = 4u64 << 30;
    let free = (1.6 + 0.3 * wave(seed, seconds, 1800.0)) * 1_073_741_824.0;
    let size = 40u64 << 30;
    HostReadings {
        cpu_seconds: modes
            .iter()
            .map(|(mode, seconds)| ((*mode).into(), rounded(*seconds, 100.0)))
            .collect(),
        cpus: Some(2),
        memory_total_bytes: Some(total),
        memory_available_bytes: Some(free as u64 / 4096 * 4096),
        load1: Some(rounded(load * (1.0 + 0.4 * wave(seed, seconds, 300.0)), 100.0)),
        filesystem_size_bytes: Some(size),
        filesystem_avail_bytes: Some(size / 2 - (seconds as u64 % 86_400) * 4096),
        booted_at: Some(booted),
    }
}

/// As many digits as a real reading has: `per` steps in one.
fn rounded(value: f64, per: f64) -> f64 {
    (value * per).round() / per
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_only_rise_and_gauges_move() {
        let since = Time::from_millis(1_700_000_000_000);
        let mut memory = Vec::new();
        let mut before = (0.0, 0.0);
        for tick in 0..1000 {
            let at = since.plus_millis(tick * 10_000);
            let read = process(7, true, since, at);
            let (cpu, log) = (read.cpu_seconds.unwrap(), read.log_err_bytes.unwrap() as f64);
            assert!(cpu >= before.0 && log >= before.1 && cpu.is_finite());
            before = (cpu, log);
            memory.push(read.memory_bytes.unwrap());
            assert!(read.node.values().all(|value| value.is_finite() && *value >= 0.0));
            assert_eq!(read, process(7, true, since, at), "the same moment tells the same");
        }
        memory.dedup();
        assert!(memory.len() > 900, "{}", memory.len());
    }
}
