//! Time as it is for programs that get a CPU when they want one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Says how long something took, less what this thread and some programs stood in line for a CPU:
/// that is the doing of whatever else runs here. On an idle machine it is the time on the wall.
#[derive(Debug)]
pub struct Stopwatch {
    began: Instant,
    pids: Vec<u32>,
    before: Vec<Waits>,
}

/// Nanoseconds that each thread stood in line so far.
type Waits = BTreeMap<String, u64>;

impl Stopwatch {
    /// Begins. `pids` are the programs that have to do something meanwhile, one after the other.
    pub fn start(pids: &[u32]) -> Self {
        let pids = pids.to_vec();
        let before = waits(&pids);
        Self { began: Instant::now(), pids, before }
    }

    /// How long it is since the start.
    pub fn elapsed(&self) -> Duration {
        let wall = self.began.elapsed();
        let in_line = waits(&self.pids).into_iter().zip(&self.before).map(|(now, before)| {
            // Its threads may stand in line together: the one that did so for longest counts.
            let since = |(thread, waited): (String, u64)| {
                waited.saturating_sub(before.get(&thread).copied().unwrap_or(0))
            };
            now.into_iter().map(since).max().unwrap_or(0)
        });
        wall.saturating_sub(Duration::from_nanos(in_line.sum()))
    }
}

/// Of this thread, and of those programs.
fn waits(pids: &[u32]) -> Vec<Waits> {
    let own = read("/proc/thread-self/schedstat").map(|waited| (String::new(), waited));
    let of = |pid: &u32| {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
        let threads = threads.flatten().filter_map(|thread| {
            let name = thread.file_name().into_string().ok()?;
            Some((name, read(thread.path().join("schedstat"))?))
        });
        threads.collect()
    };
    std::iter::once(own.into_iter().collect()).chain(pids.iter().map(of)).collect()
}

/// The second of three numbers: time in line. Some kernels do not count it.
fn read(path: impl AsRef<std::path::Path>) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_slept_counts() {
        let watch = Stopwatch::start(&[]);
        std::thread::sleep(Duration::from_millis(100));
        let since = |(now, before): (Waits, &Waits)| {
            now.into_iter().map(|(it, waited)| waited - before.get(&it).unwrap_or(&0)).sum::<u64>()
        };
        let elapsed = watch.elapsed();
        // Whoever sleeps stands in no line, but for a moment afterwards.
        let in_line: u64 = waits(&[]).into_iter().zip(&watch.before).map(since).sum();
        assert!(elapsed + Duration::from_nanos(in_line) >= Duration::from_millis(100));
        assert!(elapsed > Duration::ZERO && elapsed <= watch.began.elapsed());
    }
}
