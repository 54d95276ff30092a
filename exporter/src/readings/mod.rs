//! What `/proc` says, at the moment of asking.

mod files;
mod host;
mod kills;
mod tree;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use wire::Readings;

use files::Kept;

pub use host::Host;
pub use kills::KernelKills;

/// Readings younger than this are used again: parallel scrapes share one look.
const SHARED_FOR: Duration = Duration::from_millis(20);

/// Whether there is a process of this number that has not ended: one that nobody has waited for
/// yet has.
pub(crate) fn runs(pid: u32) -> bool {
    tree::runs(pid)
}

/// Reads processes, and remembers what one look alone cannot tell.
#[derive(Debug, Default)]
pub struct Processes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    known: HashMap<u32, Known>,
    kept: Kept,
    /// Whatever was read since the last [`Processes::sweep`].
    members: HashSet<u32>,
}

#[derive(Debug)]
struct Known {
    read_at: Instant,
    readings: Readings,
    /// Start of the process in clock ticks after boot: the same number can name another.
    start: u64,
    /// Descendants that a thread other than the first started.
    remembered: Vec<u32>,
}

impl Processes {
    /// Readings of a process and its children; empty when it does not exist.
    pub fn read(&self, pid: u32) -> Readings {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { known, kept, members } = &mut *state;
        let before = known.get(&pid);
        if let Some(before) = before
            && before.read_at.elapsed() < SHARED_FOR
        {
            return before.readings.clone();
        }
        let remembered = before.map(|before| before.remembered.clone()).unwrap_or_default();
        let Some(tree) = tree::read(pid, &remembered, kept, members) else {
            known.remove(&pid);
            return Readings::default();
        };
        let mut cpu_seconds = tree.cpu_seconds;
        if let Some(before) = known.get(&pid).filter(|before| before.start == tree.start) {
            // A child that ended and that nobody waited for takes its time with it.
            cpu_seconds = cpu_seconds.max(before.readings.cpu_seconds.unwrap_or(0.0));
        }
        let readings = Readings {
            cpu_seconds: Some(cpu_seconds),
            memory_bytes: Some(tree.memory_bytes),
            threads: Some(tree.threads),
            open_fds: tree.open_fds,
            ..Readings::default()
        };
        let (read_at, start) = (Instant::now(), tree.start);
        known.insert(pid, Known { read_at, readings: readings.clone(), start, remembered });
        readings
    }

    /// Looks for descendants that a look at the first thread misses, and forgets processes
    /// that are not in `pids`; files that nobody read since the last time are closed.
    pub fn sweep(&self, pids: &[u32]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { known, kept, members } = &mut *state;
        let members = std::mem::take(members);
        kept.retain(|pid| members.contains(&pid));
        known.retain(|pid, _| pids.contains(pid));
        for (pid, known) in known.iter_mut() {
            known.remembered = tree::hidden_children(*pid);
        }
    }
}
