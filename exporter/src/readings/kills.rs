//! Processes that the kernel killed for memory, counted in `/proc/vmstat` (`oom_kill`, since
//! Linux 4.13).

use std::fs;

/// Tells whether the kernel killed anything since last asked. Only the whole machine's count is
/// known: a process that somebody kills by SIGKILL in the same moment is taken for it.
#[derive(Debug)]
pub struct KernelKills(Option<u64>);

impl KernelKills {
    /// Counts from now on.
    pub fn new() -> Self {
        Self(count(&read()))
    }

    /// Whether there was another since.
    pub fn another(&mut self) -> bool {
        let now = count(&read());
        let before = std::mem::replace(&mut self.0, now);
        now > before && before.is_some()
    }
}

impl Default for KernelKills {
    fn default() -> Self {
        Self::new()
    }
}

fn read() -> String {
    fs::read_to_string("/proc/vmstat").unwrap_or_default()
}

fn count(vmstat: &str) -> Option<u64> {
    vmstat.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_count_is_found_among_the_others() {
        assert_eq!(count("nr_free_pages 5\noom_kill 3\noom_kill_other 9\n"), Some(3));
        assert_eq!(count("oom_killer 3\n"), None);
        assert!(!KernelKills::new().another());
    }
}
