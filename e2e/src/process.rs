//! Processes of the operating system, as `/proc` shows them: who descends from whom, what
//! they use, and their end by id.

use std::collections::BTreeSet;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{SOON, wait_blocking};

/// The environment variable that marks everything the harness starts; its value begins with
/// the starter's [`Identity`].
pub const MARK: &str = "PM2_FLEET_E2E";

/// What `/proc/<pid>/stat` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The parent.
    pub parent: u32,
    /// `R`, `S`, `T`, `Z`, …
    pub state: char,
    /// CPU time used by the process itself, user and system, in clock ticks.
    pub ticks: u64,
    /// Start after boot, in clock ticks: tells two users of one id apart.
    pub started: u64,
}

/// Reads `/proc/<pid>/stat`; `None` when there is no such process.
pub fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may itself hold some.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(number(1)?).ok()?,
        state: fields.first()?.chars().next()?,
        ticks: number(11)? + number(12)?,
        started: number(19)?,
    })
}

/// Whether it runs: there, and not only waiting to be reaped.
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// A process for good: ids are used again, id and start are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub pid: u32,
    /// [`Stat::started`].
    pub started: u64,
}

impl Identity {
    /// Of a process that runs now.
    pub fn of(pid: u32) -> Option<Self> {
        stat(pid).map(|stat| Self { pid, started: stat.started })
    }

    /// Whether that same process still runs.
    pub fn is_alive(self) -> bool {
        is_alive(self.pid) && Self::of(self.pid) == Some(self)
    }

    /// From the beginning of a mark.
    fn from_mark(mark: &str) -> Option<Self> {
        let mut parts = mark.split('.');
        Some(Self { pid: parts.next()?.parse().ok()?, started: parts.next()?.parse().ok()? })
    }
}

/// A new mark of this process, unlike every other: `pid.start.number`.
pub fn new_mark() -> String {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let own = Identity::of(std::process::id());
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("{}.{}.{number}", std::process::id(), own.map_or(0, |own| own.started))
}

/// Ids of all processes.
pub fn all() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The running children, grandchildren and so on of a process.
pub fn descendants(ancestor: u32) -> BTreeSet<u32> {
    let parents: Vec<(u32, u32)> =
        all().into_iter().filter_map(|pid| Some((pid, stat(pid)?.parent))).collect();
    let mut found = BTreeSet::new();
    let mut open = vec![ancestor];
    while let Some(parent) = open.pop() {
        for (pid, _) in parents.iter().filter(|(_, its)| *its == parent) {
            if is_alive(*pid) && found.insert(*pid) {
                open.push(*pid);
            }
        }
    }
    found
}

/// The value of an environment variable that a process was started with.
pub fn variable(pid: u32, name: &str) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    environment
        .split(|byte| *byte == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok()?.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned())
}

/// The running processes of slots whose root is in that folder: those of a daemon that was killed go on.
pub fn of_slots(folder: &std::path::Path) -> BTreeSet<u32> {
    let begin = format!("{}/", folder.display());
    let is_one = |pid: &u32| {
        variable(*pid, "PM2_EXPORTER_SLOT").is_some_and(|slot| slot.starts_with(&begin))
    };
    all().into_iter().filter(|pid| is_alive(*pid) && is_one(pid)).collect()
}

/// The running processes that carry this mark, whoever their parents are by now.
pub fn marked(mark: &str) -> BTreeSet<u32> {
    let own = std::process::id();
    all()
        .into_iter()
        .filter(|pid| *pid != own && variable(*pid, MARK).as_deref() == Some(mark))
        .filter(|pid| is_alive(*pid))
        .collect()
}

/// The running processes whose starter is no longer there to end them.
pub fn orphans() -> BTreeSet<u32> {
    let is_orphan = |pid: &u32| {
        variable(*pid, MARK)
            .and_then(|mark| Identity::from_mark(&mark))
            .is_some_and(|starter| !starter.is_alive())
    };
    all().into_iter().filter(|pid| is_alive(*pid) && is_orphan(pid)).collect()
}

/// Sends a signal; a process that is gone is none to send to.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Kills whatever `find` finds until it finds nothing, and tells what would not die.
pub fn end_all(find: impl Fn() -> BTreeSet<u32>) -> BTreeSet<u32> {
    let mut left = BTreeSet::new();
    wait_blocking(SOON, || {
        left = find();
        left.iter().for_each(|pid| signal(*pid, Signal::KILL));
        left.is_empty()
    });
    left
}

/// CPU seconds that a process itself has used, user and system, to a tick (10 ms).
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    Some(stat(pid)?.ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The same to a microsecond, where the kernel tells it by thread (`schedstat`); what threads
/// used that have ended is not in it.
pub fn cpu_seconds_of_threads(pid: u32) -> Option<f64> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let nanoseconds: Option<u64> = threads
        .map(|thread| {
            let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum();
    match nanoseconds? {
        0 => cpu_seconds(pid),
        nanoseconds => Some(nanoseconds as f64 / 1e9),
    }
}

/// Keeps a process, with all the threads it has and will have, on one core.
///
/// # Errors
/// There is no such core, or no `taskset`.
pub fn pin(pid: u32, core: usize) -> anyhow::Result<()> {
    let output = std::process::Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid", &core.to_string(), &pid.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "taskset: {said}");
    Ok(())
}

/// Descriptors that a process has open.
pub fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// A line of `/proc/<pid>/smaps_rollup` (`Pss`, `Rss`) in bytes.
pub fn memory(pid: u32, line: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let rest = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':'))?;
    let kib: u64 = rest.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// The most resident memory that a process has had, in bytes.
pub fn peak_memory(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = rest.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_process_is_found_and_ended_though_its_parent_is_gone() {
        let mark = new_mark();
        // The shell ends at once; its child has init for a parent then.
        let script = "sleep 300 >/dev/null 2>&1 & exit 0";
        let mut shell = std::process::Command::new("sh");
        let status = shell.args(["-c", script]).env(MARK, &mark).status().unwrap();
        assert!(status.success());
        // While a program takes another's place, /proc shows no environment of it.
        let one = || marked(&mark).len() == 1;
        assert!(crate::wait::wait_blocking(SOON, one));
        assert!(orphans().is_disjoint(&marked(&mark)), "its starter, this test, still runs");
        assert!(end_all(|| marked(&mark)).is_empty());
    }

    #[test]
    fn this_process_has_used_cpu_and_memory() {
        let own = std::process::id();
        assert!(is_alive(own) && Identity::of(own).unwrap().is_alive());
        assert!(cpu_seconds(own).is_some());
        assert!(memory(own, "Rss").unwrap() >= memory(own, "Pss").unwrap());
        assert!(!Identity { pid: own, started: 1 }.is_alive());
    }
}
