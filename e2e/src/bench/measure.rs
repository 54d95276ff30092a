//! What processes use, and figures taken many times.

use std::time::{Duration, Instant};

use crate::process::{cpu_seconds_of_threads, descendants, memory};
use anyhow::Context;

/// CPU seconds that a process itself has used, to a microsecond.
///
/// # Errors
/// It has ended.
pub fn cpu(pid: u32) -> anyhow::Result<f64> {
    cpu_seconds_of_threads(pid).with_context(|| format!("process {pid} is gone"))
}

/// The same with everything that descends from it and still runs.
///
/// # Errors
/// It has ended.
pub fn cpu_of_tree(pid: u32) -> anyhow::Result<f64> {
    let below: f64 = descendants(pid).into_iter().filter_map(cpu_seconds_of_threads).sum();
    Ok(cpu(pid)? + below)
}

/// Memory of a process in MiB: a line of `smaps_rollup`, `Rss` or `Pss`.
///
/// # Errors
/// It has ended.
pub fn mebibytes(pid: u32, line: &str) -> anyhow::Result<f64> {
    let bytes = memory(pid, line).with_context(|| format!("process {pid} is gone"))?;
    Ok(bytes as f64 / f64::from(1 << 20))
}

/// The same with everything that descends from it and still runs.
///
/// # Errors
/// It has ended.
pub fn mebibytes_of_tree(pid: u32, line: &str) -> anyhow::Result<f64> {
    let below: u64 = descendants(pid).into_iter().filter_map(|pid| memory(pid, line)).sum();
    Ok(mebibytes(pid, line)? + below as f64 / f64::from(1 << 20))
}

/// CPU seconds a second of each of these over a time in which nobody asks.
///
/// # Errors
/// One of them ends.
pub async fn at_rest(pids: &[u32], time: Duration) -> anyhow::Result<Vec<f64>> {
    let before = pids.iter().map(|pid| cpu(*pid)).collect::<anyhow::Result<Vec<_>>>()?;
    let start = Instant::now();
    tokio::time::sleep(time).await;
    let seconds = start.elapsed().as_secs_f64();
    let used = pids.iter().zip(before).map(|(pid, before)| Ok((cpu(*pid)? - before) / seconds));
    used.collect()
}

/// A figure taken many times.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// One more.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The value that this share of all is at most (0.5: the median); not a number when there
    /// are none.
    pub fn percentile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() as f64 * share).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    /// The value in the middle.
    pub fn median(&self) -> f64 {
        self.percentile(0.5)
    }

    /// The least.
    pub fn min(&self) -> f64 {
        self.percentile(0.0)
    }

    /// The most.
    pub fn max(&self) -> f64 {
        self.percentile(1.0)
    }

    /// `median (least to most)`, for figures of several runs.
    pub fn spread(&self) -> String {
        format!("{:.3} ({:.3} to {:.3})", self.median(), self.min(), self.max())
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        Self(values.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let samples: Samples = (1..=100).rev().map(f64::from).collect();
        let found = [0.0, 0.5, 0.99, 1.0].map(|share| samples.percentile(share));
        assert_eq!(found, [1.0, 50.0, 99.0, 100.0]);
        assert_eq!((samples.min(), samples.median(), samples.max()), (1.0, 50.0, 100.0));
        assert_eq!([7.0].into_iter().collect::<Samples>().spread(), "7.000 (7.000 to 7.000)");
        assert!(Samples::default().median().is_nan());
    }
}
