//! CPU as people want it, from counters as exporters give it: the newest difference of two
//! samples. For what is shown now; history makes its own from what is stored.

use std::collections::{BTreeMap, HashSet};

use wire::{HostReadings, Instance, Sample, Time};

use crate::fleet::Rates;

/// Two samples further apart make no rate, in milliseconds.
const MAX_APART: i64 = 5 * 60 * 1000;

#[derive(Clone, Copy, Debug)]
struct Before {
    time: Time,
    cpu_seconds: f64,
    restarts: u64,
    /// Up to then.
    rate: Option<f64>,
}

/// The newest counters of a server.
#[derive(Debug, Default)]
pub(super) struct Counters {
    processes: BTreeMap<Instance, Before>,
    host: Option<(Time, f64, f64)>,
    host_cpu: Option<f64>,
}

impl Counters {
    /// Takes the next sample.
    pub(super) fn next(&mut self, time: Time, sample: &Sample) {
        let mut there = 0;
        for process in &sample.processes {
            let Some(cpu_seconds) = process.readings.cpu_seconds else { continue };
            there += 1;
            let (instance, restarts) = (&process.instance, process.restarts);
            let now = Before { time, cpu_seconds, restarts, rate: None };
            // Names are made anew for what is new only.
            match self.processes.get_mut(instance) {
                Some(before) => {
                    let used = cpu_seconds - before.cpu_seconds;
                    let rate = rate(time.millis_since(before.time), used)
                        .filter(|_| before.restarts == restarts);
                    *before = Before { rate, ..now };
                }
                None => {
                    self.processes.insert(instance.clone(), now);
                }
            }
        }
        if self.processes.len() > there {
            let read = sample.processes.iter().filter(|it| it.readings.cpu_seconds.is_some());
            let there: HashSet<&Instance> = read.map(|process| &process.instance).collect();
            self.processes.retain(|instance, _| there.contains(instance));
        }
        let before = self.host;
        self.host = sample.host.as_ref().and_then(|host| {
            let (busy, all) = busy_and_all(host)?;
            Some((time, busy, all))
        });
        self.host_cpu =
            before.zip(self.host).and_then(|((then, busy, all), (now, busy_now, all_now))| {
                let apart = now.millis_since(then);
                let (busy, all) = (busy_now - busy, all_now - all);
                ((1..=MAX_APART).contains(&apart) && all > 0.0 && busy >= 0.0)
                    .then(|| (busy / all).min(1.0))
            });
    }

    pub(super) fn rates(&self) -> Rates<'_> {
        let processes = self.processes.iter();
        let cpu = processes.filter_map(|(instance, it)| Some((instance, it.rate?))).collect();
        Rates { cpu, host_cpu: self.host_cpu }
    }

    pub(super) fn host_cpu(&self) -> Option<f64> {
        self.host_cpu
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
        let instance = Instance {
            name: "api".parse().unwrap(),
            namespace: "default".into(),
            instance_id: 0,
            pm2_home: None,
        };
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
            counters.next(Time::from_millis(seconds * 1000), &sample(cpu, restarts, modes));
            let rates = counters.rates();
            (rates.cpu.first().map(|(_, rate)| *rate), rates.host_cpu)
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
