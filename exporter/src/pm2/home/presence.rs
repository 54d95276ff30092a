//! Processes that PM2 takes for running and that have ended: one that hangs does not hear of it.

use std::collections::{BTreeSet, HashSet};

use wire::{Process, Status};

/// What was seen of the processes.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// Numbers of processes that were there once: what was never seen may be hidden from this
    /// program, as in another container, and is taken for what PM2 calls it.
    seen: HashSet<u32>,
    gone: BTreeSet<u32>,
}

impl Presence {
    /// Says of those that were there and have ended that there is no such process. `runs` is asked
    /// only about those without readings. Gives whether they are others than the last time.
    pub(super) fn look(&mut self, processes: &mut [Process], runs: impl Fn(u32) -> bool) -> bool {
        let (mut seen, mut gone) = (HashSet::with_capacity(processes.len()), BTreeSet::new());
        for process in processes {
            let Some(pid) = process.pid else { continue };
            if process.readings.cpu_seconds.is_some() || runs(pid) {
                seen.insert(pid);
            } else if self.seen.contains(&pid) {
                seen.insert(pid);
                gone.insert(pid);
                (process.pid, process.started_at) = (None, None);
                process.online_without_pid = process.status == Status::Online;
                forget_reports(process);
            }
        }
        self.seen = seen;
        std::mem::replace(&mut self.gone, gone) != self.gone
    }
}

/// Leaves out what the application reported.
pub(super) fn forget_reports(process: &mut Process) {
    process.readings.node = Default::default();
    process.readings.custom = Default::default();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32) -> Process {
        let json = serde_json::json!({
            "name": "api", "namespace": "default", "instance_id": 0, "pm_id": 0, "pid": pid,
            "status": "online", "exec_mode": "fork", "interpreter": "node", "node_version": "",
            "version": "", "restarts": {}, "exceptions": 0, "online_without_pid": false,
            "readings": {},
        });
        let mut process: Process = serde_json::from_value(json).unwrap();
        process.readings.node.insert("heap_used".into(), 1.0);
        process
    }

    #[test]
    fn what_was_there_and_has_ended_is_told_once() {
        let mut presence = Presence::default();
        let look = |presence: &mut Presence, pid, runs| {
            let mut all = [process(pid)];
            let changed = presence.look(&mut all, |_| runs);
            let [one] = all;
            (changed, one.online_without_pid, one.pid, one.readings.node.len())
        };
        // Never seen: perhaps it may not be.
        assert_eq!(look(&mut presence, 7, false), (false, false, Some(7), 1));
        assert_eq!(look(&mut presence, 7, true), (false, false, Some(7), 1));
        assert_eq!(look(&mut presence, 7, false), (true, true, None, 0));
        assert_eq!(look(&mut presence, 7, false), (false, true, None, 0));
        // PM2 has started it anew.
        assert_eq!(look(&mut presence, 8, true), (true, false, Some(8), 1));
    }
}
