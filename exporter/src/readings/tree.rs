//! A process and its descendants, from `/proc/<pid>/{stat,fd,task/<tid>/children}`
//! (proc(5)).

use std::fs;

/// Sums over a process and its descendants.
#[derive(Debug, PartialEq)]
pub(super) struct Tree {
    /// Start of the first process, in clock ticks after boot.
    pub(super) start: u64,
    pub(super) cpu_seconds: f64,
    pub(super) memory_bytes: u64,
    pub(super) threads: u32,
    /// Absent when not permitted to look.
    pub(super) open_fds: Option<u32>,
}

/// More descendants than this are left out: a fork bomb must not stop the exporter.
const MAX_PROCESSES: usize = 512;

/// The tree of `pid`; `None` when there is no such process. `remembered` are descendants to be
/// counted as well where they still are descendants' kin: found by [`hidden_children`].
pub(super) fn read(pid: u32, remembered: &[u32]) -> Option<Tree> {
    let first = stat(pid)?;
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let mut tree = Tree {
        start: first.start,
        cpu_seconds: 0.0,
        memory_bytes: 0,
        threads: 0,
        open_fds: Some(0),
    };
    let mut open = vec![pid];
    open.extend(remembered);
    let mut seen = Vec::with_capacity(open.len());
    while let Some(pid) = open.pop() {
        if seen.contains(&pid) || seen.len() >= MAX_PROCESSES {
            continue;
        }
        seen.push(pid);
        let Some(stat) = stat(pid) else { continue };
        // A remembered number that was given to a stranger since.
        if stat.start < first.start {
            continue;
        }
        tree.cpu_seconds += stat.ticks as f64 / ticks;
        tree.memory_bytes += stat.pages * rustix::param::page_size() as u64;
        tree.threads += stat.threads;
        tree.open_fds = match (tree.open_fds, open_fds(pid)) {
            (Some(sum), Some(count)) => Some(sum + count),
            _ => None,
        };
        open.extend(children(&format!("/proc/{pid}/task/{pid}/children")));
    }
    Some(tree)
}

/// Children of threads other than the first, anywhere below `pid`.
pub(super) fn hidden_children(pid: u32) -> Vec<u32> {
    let (mut open, mut hidden) = (vec![pid], Vec::new());
    let mut seen = 0;
    while let Some(pid) = open.pop() {
        seen += 1;
        if seen > MAX_PROCESSES {
            break;
        }
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for thread in threads.flatten() {
            let of_first = thread.file_name().to_str().is_some_and(|tid| tid == pid.to_string());
            let path = thread.path().join("children");
            for child in children(&path.to_string_lossy()) {
                open.push(child);
                if !of_first {
                    hidden.push(child);
                }
            }
        }
    }
    hidden
}

fn children(path: &str) -> Vec<u32> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn open_fds(pid: u32) -> Option<u32> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u32)
}

#[derive(Debug, PartialEq)]
struct Stat {
    /// User and system time, own and of children that were waited for.
    ticks: u64,
    threads: u32,
    start: u64,
    pages: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields by their numbers in proc(5). The name in field 2 may hold spaces and parentheses, so
/// counting begins behind its last one.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    // A zombie has ended; its time is counted where it is waited for.
    if fields.first() == Some(&"Z") {
        return None;
    }
    Some(Stat {
        ticks: field(14)? + field(15)? + field(16)? + field(17)?,
        threads: u32::try_from(field(20)?).ok()?,
        start: field(22)?,
        pages: field(24)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_fields() {
        let line = "42 (a) R 1 (b)) S 1 42 42 0 -1 4194560 5 0 0 0 10 20 3 4 20 0 7 0 555 1000 99 \
                    18446744073709551615";
        let expected = Stat { ticks: 37, threads: 7, start: 555, pages: 99 };
        assert_eq!(parse_stat(line), Some(expected));
        for wrong in ["", "42", "42 (x", "42 (x) S 1 2", &line.replace(") S", ") Z")] {
            assert_eq!(parse_stat(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn this_process_and_its_child_are_read() {
        let alone = read(std::process::id(), &[]).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let both = read(std::process::id(), &hidden_children(std::process::id())).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(alone.memory_bytes > 100_000 && alone.threads >= 1 && alone.open_fds > Some(2));
        // Tests run in threads, so the child is not the first thread's.
        assert!(both.threads > alone.threads, "{both:?} {alone:?}");
        assert_eq!(read(u32::MAX - 1, &[]), None);
    }
}
