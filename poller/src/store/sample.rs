//! How a sample is laid down until it is folded into a block: all processes of a server at one
//! moment, as small integers, about 20 bytes a process and 9 for each further metric. CPU is
//! kept as the counter that was read, so that nothing is lost between two lives of the poller;
//! rates are made when they are needed.
//!
//! Layout, all integers as LEB128: version; host metrics; count of processes; for each its
//! instance number, status, restarts, a byte of flags, the readings that the flags name (CPU in
//! microseconds), then its metrics. Metrics are a count, then number and IEEE 754 value each.

use super::varint::{get, put, take};

/// Version of the layout.
const VERSION: u8 = 2;

const CPU: u8 = 1;
const MEMORY: u8 = 2;
const THREADS: u8 = 4;
const FDS: u8 = 8;

/// A sample with numbers for names.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sample {
    pub(super) host: Vec<(i64, f64)>,
    pub(super) processes: Vec<Process>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Process {
    pub(super) instance: i64,
    /// Place of its status in `Status::ALL`.
    pub(super) status: u8,
    pub(super) restarts: u64,
    pub(super) cpu_micros: Option<u64>,
    pub(super) memory: Option<u64>,
    pub(super) threads: Option<u64>,
    pub(super) fds: Option<u64>,
    pub(super) metrics: Vec<(i64, f64)>,
}

impl Sample {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + 48 * self.processes.len());
        out.push(VERSION);
        put_metrics(&mut out, &self.host);
        put(&mut out, self.processes.len() as u64);
        for process in &self.processes {
            put(&mut out, process.instance.unsigned_abs());
            out.push(process.status);
            put(&mut out, process.restarts);
            let readings = [
                (CPU, process.cpu_micros),
                (MEMORY, process.memory),
                (THREADS, process.threads),
                (FDS, process.fds),
            ];
            let flags = readings.iter().filter(|(_, value)| value.is_some());
            out.push(flags.fold(0, |flags, (flag, _)| flags | flag));
            for value in readings.iter().filter_map(|(_, value)| *value) {
                put(&mut out, value);
            }
            put_metrics(&mut out, &process.metrics);
        }
        out
    }

    /// `None` when it is no sample of a version known here.
    pub(super) fn decode(mut data: &[u8]) -> Option<Self> {
        let from = &mut data;
        if take(from, 1)? != [VERSION] {
            return None;
        }
        let host = get_metrics(from)?;
        let count = get(from)?;
        let mut processes = Vec::with_capacity(usize::try_from(count).ok()?.min(from.len()));
        for _ in 0..count {
            let instance = i64::try_from(get(from)?).ok()?;
            let status = take(from, 1)?[0];
            let restarts = get(from)?;
            let flags = take(from, 1)?[0];
            let mut reading =
                |flag| if flags & flag == 0 { Some(None) } else { get(from).map(Some) };
            processes.push(Process {
                instance,
                status,
                restarts,
                cpu_micros: reading(CPU)?,
                memory: reading(MEMORY)?,
                threads: reading(THREADS)?,
                fds: reading(FDS)?,
                metrics: get_metrics(from)?,
            });
        }
        from.is_empty().then_some(Self { host, processes })
    }
}

fn put_metrics(out: &mut Vec<u8>, metrics: &[(i64, f64)]) {
    put(out, metrics.len() as u64);
    for (metric, value) in metrics {
        put(out, metric.unsigned_abs());
        out.extend(value.to_le_bytes());
    }
}

fn get_metrics(from: &mut &[u8]) -> Option<Vec<(i64, f64)>> {
    let count = get(from)?;
    let mut metrics = Vec::with_capacity(usize::try_from(count).ok()?.min(from.len() / 9));
    for _ in 0..count {
        let metric = i64::try_from(get(from)?).ok()?;
        let value = take(from, 8)?.try_into().ok()?;
        metrics.push((metric, f64::from_le_bytes(value)));
    }
    Some(metrics)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::option::of;
    use proptest::prelude::*;

    fn process() -> impl Strategy<Value = Process> {
        let metrics = vec((0..i64::MAX, -1e300..1e300), 0..4);
        (
            (0..i64::MAX, 0..8u8),
            any::<u64>(),
            of(any::<u64>()),
            of(any::<u64>()),
            of(0..9u64),
            of(0..9u64),
            metrics,
        )
            .prop_map(
                |((instance, status), restarts, cpu_micros, memory, threads, fds, metrics)| {
                    Process {
                        instance,
                        status,
                        restarts,
                        cpu_micros,
                        memory,
                        threads,
                        fds,
                        metrics,
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            host in vec((0..i64::MAX, -1e300..1e300), 0..4),
            processes in vec(process(), 0..5),
        ) {
            let sample = Sample { host, processes };
            prop_assert_eq!(Sample::decode(&sample.encode()), Some(sample));
        }

        #[test]
        fn nothing_panics_and_a_torn_row_is_none(data: Vec<u8>, processes in vec(process(), 1..3)) {
            let _ = Sample::decode(&data);
            let whole = Sample { host: Vec::new(), processes }.encode();
            prop_assert_eq!(Sample::decode(&whole[..whole.len() - 1]), None);
        }
    }

    #[test]
    fn a_plain_process_is_small() {
        let process = Process {
            instance: 300,
            status: 0,
            restarts: 2,
            cpu_micros: Some(3_600_000_000),
            memory: Some(60 << 20),
            threads: Some(11),
            fds: Some(21),
            metrics: Vec::new(),
        };
        let sample = Sample { host: Vec::new(), processes: vec![process; 6] };
        assert!(sample.encode().len() < 6 * 20, "{}", sample.encode().len());
    }
}
