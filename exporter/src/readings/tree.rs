//! A process and its descendants, from `/proc/<pid>/{stat,fd,task/<tid>/children}`
//! (proc(5)).

use std::collections::HashSet;
use std::fs;

use super::files::Kept;

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
/// counted as well where they still are descendants' kin: found by [`hidden_children`]. What is
/// read is added to `members`.
pub(super) fn read(
    pid: u32,
    remembered: &[u32],
    kept: &mut Kept,
    members: &mut HashSet<u32>,
) -> Option<Tree> {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let page_size = rustix::param::page_size() as u64;
    let mut tree: Option<Tree> = None;
    let mut open = vec![pid];
    let mut seen = Vec::with_capacity(1 + remembered.len());
    while let Some(pid) = open.pop() {
        if seen.contains(&pid) || seen.len() >= MAX_PROCESSES {
            continue;
        }
        seen.push(pid);
        let found = kept.look(pid, |line, files| {
            let stat = parse_stat(line)?;
            // A remembered number that was given to a stranger since is nobody's child here.
            let stranger = tree.as_ref().is_some_and(|tree| stat.start < tree.start);
            if stranger {
                return Some(None);
            }
            Some(Some((stat, files.open_fds(pid), files.children())))
        });
        let Some(found) = found else {
            // The first one is gone, and with it all there was to read.
            tree.as_ref()?;
            continue;
        };
        let Some((stat, open_fds, children)) = found else { continue };
        members.insert(pid);
        let first = tree.is_none();
        let sum = tree.get_or_insert(Tree {
            start: stat.start,
            cpu_seconds: 0.0,
            memory_bytes: 0,
            threads: 0,
            open_fds: Some(0),
        });
        sum.cpu_seconds += stat.ticks as f64 / ticks;
        sum.memory_bytes += stat.pages * page_size;
        sum.threads += stat.threads;
        sum.open_fds = sum.open_fds.zip(open_fds).map(|(sum, count)| sum + count);
        if first {
            open.extend(remembered);
        }
        open.extend(children);
    }
    tree
}

/// Whether there is a process of this number that has not ended.
pub(super) fn runs(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/stat")).is_ok_and(|line| parse_stat(&line).is_some())
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
    numbers(&fs::read(path).unwrap_or_default())
}

/// The numbers in a text with spaces between them.
pub(super) fn numbers(text: &[u8]) -> Vec<u32> {
    text.split(u8::is_ascii_whitespace).filter_map(|word| number(word)?.try_into().ok()).collect()
}

/// A number in decimal digits.
fn number(digits: &[u8]) -> Option<u64> {
    let (true, false) = (digits.iter().all(u8::is_ascii_digit), digits.is_empty()) else {
        return None;
    };
    digits.iter().try_fold(0u64, |number, digit| {
        number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

#[derive(Debug, PartialEq)]
struct Stat {
    /// User and system time, own and of children that were waited for.
    ticks: u64,
    threads: u32,
    start: u64,
    pages: u64,
}

/// Fields by their numbers in proc(5). The name in field 2 may hold spaces and parentheses, so
/// counting begins behind its last one.
fn parse_stat(line: &[u8]) -> Option<Stat> {
    let name_ends = line.iter().rposition(|byte| *byte == b')')?;
    let mut fields = line.get(name_ends + 2..)?.split(|byte| *byte == b' ');
    // A zombie has ended; its time is counted where it is waited for.
    if fields.next()? == b"Z" {
        return None;
    }
    // What stands behind field 3, and on which field it stands then.
    let mut at = 4;
    let mut field = |wanted: usize| {
        let found = fields.nth(wanted - at)?;
        at = wanted + 1;
        number(found)
    };
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
        assert_eq!(parse_stat(line.as_bytes()), Some(expected));
        for wrong in ["", "42", "42 (x", "42 (x) S 1 2", &line.replace(") S", ") Z")] {
            assert_eq!(parse_stat(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn this_process_and_its_child_are_read() {
        let (own, mut kept, mut members) = (std::process::id(), Kept::default(), HashSet::new());
        let alone = read(own, &[], &mut kept, &mut members).unwrap();
        assert_eq!(members, HashSet::from([own]));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let hidden = hidden_children(own);
        let both = read(own, &hidden, &mut kept, &mut members).unwrap();
        // Tests run in threads, so the child is not the first thread's.
        assert!(members.contains(&own) && members.contains(&child.id()));
        assert!(runs(child.id()));
        child.kill().unwrap();
        // It is there until somebody waits for it, and runs no more.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while runs(child.id()) && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert!(!runs(child.id()) && fs::exists(format!("/proc/{}", child.id())).unwrap());
        child.wait().unwrap();
        assert!(!runs(child.id()));
        assert!(alone.memory_bytes > 100_000 && alone.threads >= 1 && alone.open_fds > Some(2));
        assert!(both.start == alone.start && both.cpu_seconds >= alone.cpu_seconds);
        assert_eq!(read(u32::MAX - 1, &[], &mut kept, &mut members), None);
    }
}
