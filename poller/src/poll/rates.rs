//! CPU as people want it, from counters as exporters give it: the newest difference of two
//! samples. For what is shown now; history makes its own from what is stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use wire::{HostReadings, Instance, Sample, Time};

use crate::fleet::Rates;

/// Two samples further apart make no rate, in milliseconds.
const MAX_APART: i64 = 5 * 60 * 1000;

#[derive(Clone, Copy, Debug)]
struct Before {
    time: Time,
    cpu_seconds: f64,
    restarts: u64,
}

/// The newest counters of a server.
#[derive(Debug, Default)]
pub(super) struct Counters {
    processes: BTreeMap<Instance, Before>,
    host: Option<(Time, f64, f64)>,
}

impl Counters {
    /// Takes the next sample and gives the rates up to it.
    pub(super) fn next(&mut self, time: Time, sample: &Sample) -> Rates {
        let mut cpu = BTreeMap::new();
        let mut processes = BTreeMap::new();
        for process in &sample.processes {
            let Some(cpu_seconds) = process.readings.cpu_seconds else { continue };
            let now = Before { time, cpu_seconds, restarts: process.restarts };
            if let Some(before) = self.processes.get(&process.instance)
                && before.restarts == now.restarts
                && let Some(rate) =
                    rate(time.millis_since(before.time), now.cpu_seconds - before.cpu_seconds)
            {
                cpu.insert(process.instance.clone(), rate);
            }
            processes.insert(process.instance.clone(), now);
        }
        self.processes = processes;
        let before = self.host;
        self.host = sample.host.as_ref().and_then(|host| {
            let (busy, all) = busy_and_all(host)?;
            Some((time, busy, all))
        });
        let host_cpu =
            before.zip(self.host).and_then(|((then, busy, all), (now, busy_now, all_now))| {
                let apart = now.millis_since(then);
                let (busy, all) = (busy_now - busy, all_now - all);
                ((1..=MAX_APART).contains(&apart) && all > 0.0 && busy >= 0.0)
                    .then(|| (busy / all).min(1.0))
            });
        Rates { cpu: Arc::new(cpu), host_cpu }
    }
}

fn rate(apart: i64, used: f64) -> Option<f64> {
    ((1..=MAX_APART).contains(&apart) && used >= 0.0).then(|| used * 1000.0 / apart as f64)
}

/// Seconds that the machine's cores worked, and seconds in all.
fn busy_and_all(host: &HostReadings) -> Option<(f64, f64)> {
    if host.cpu_seconds.is_empty() {
        return None;
    }
    let all = host.cpu_seconds.iter().map(|(_, seconds)| seconds).sum();
    let busy = host
        .cpu_seconds
        .iter()
        .filter(|(mode, _)| !matches!(mode.as_str(), "idle" | "iowait"))
        .map(|(_, seconds)| seconds)
        .sum();
    Some((busy, all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Readings, SampledProcess, Status};

    fn sample(cpu_seconds: Option<f64>, restarts: u64, modes: [f64; 2]) -> Sample {
        let instance =
            Instance { name: "api".parse().unwrap(), namespace: "default".into(), instance_id: 0 };
        let readings = Readings { cpu_seconds, ..Readings::default() };
        let [user, idle] = modes;
        Sample {
            host: Some(HostReadings {
                cpu_seconds: vec![("user".into(), user), ("idle".into(), idle)],
                ..HostReadings::default()
            }),
            processes: vec![SampledProcess {
                instance,
                status: Status::Online,
                restarts,
                readings,
            }],
        }
    }

    #[test]
    fn cores_by_difference_and_nothing_over_a_restart() {
        let mut counters = Counters::default();
        let mut next = |seconds: i64, cpu, restarts, modes| {
            let rates =
                counters.next(Time::from_millis(seconds * 1000), &sample(cpu, restarts, modes));
            (rates.cpu.values().next().copied(), rates.host_cpu)
        };
        assert_eq!(next(0, Some(5.0), 0, [10.0, 10.0]), (None, None));
        assert_eq!(next(10, Some(10.0), 0, [15.0, 25.0]), (Some(0.5), Some(0.25)));
        // Started again, and already past the old count.
        assert_eq!(next(20, Some(12.0), 1, [15.0, 25.0]), (None, None));
        // The counter fell although no restart was seen; the machine too was started again.
        assert_eq!(next(30, Some(1.0), 1, [0.0, 1.0]), (None, None));
        assert_eq!(next(40, None, 1, [1.0, 2.0]).0, None);
        assert_eq!(next(50, Some(2.0), 1, [1.0, 2.0]).0, None);
        // The clock was set back.
        assert_eq!(next(45, Some(3.0), 1, [2.0, 3.0]), (None, None));
    }
}
