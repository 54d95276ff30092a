//! What a process that ended by itself wrote to stderr last.

use std::path::Path;
use std::time::Duration;

use wire::{Event, RestartCause};

use crate::logs::Tail;

/// How many lines are kept, and how many characters at the most.
const LINES: usize = 10;
const LENGTH: usize = 2_000;
/// Older lines are of an earlier end.
const WITHIN: Duration = Duration::from_secs(5);

/// Adds the last lines of `log` to an exit that nobody asked for. Its first `before` bytes were
/// there when the run before that one ended. Gives how many there are now.
pub(super) fn add(event: &mut Event, log: &Path, before: u64) -> u64 {
    let Ok(found) = std::fs::metadata(log) else { return 0 };
    let by_itself = matches!(event.cause, Some(RestartCause::Crash | RestartCause::Oom));
    let fresh = found.modified().is_ok_and(|at| at.elapsed().is_ok_and(|ago| ago < WITHIN));
    if !by_itself || !fresh {
        return found.len();
    }
    let Ok((tail, lines)) = Tail::open_after(log, before, LINES) else { return before };
    let text = lines.join("\n");
    let skip = text.chars().count().saturating_sub(LENGTH);
    let text: String = text.chars().skip(skip).collect();
    if !text.is_empty() {
        event.details.insert("stderr".to_owned(), text);
    }
    tail.position()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{EventKind, Severity};

    fn exit(cause: RestartCause) -> Event {
        let event = Event::new(EventKind::EXIT, Severity::Warning, "x");
        Event { cause: Some(cause), ..event }
    }

    #[test]
    fn an_end_that_nobody_asked_for_carries_what_was_said_last() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("err.log");
        std::fs::write(&log, "old\n".repeat(50) + &"y".repeat(5_000) + "\nlast\n").unwrap();
        let mut crash = exit(RestartCause::Crash);
        add(&mut crash, &log, 0);
        let words = &crash.details["stderr"];
        assert!(words.ends_with("y\nlast") && words.chars().count() == LENGTH, "{words}");
        let mut asked = exit(RestartCause::Manual);
        add(&mut asked, &log, 0);
        assert!(asked.details.is_empty());
    }

    #[test]
    fn lines_of_an_earlier_end_are_not_told() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("err.log");
        std::fs::write(&log, "old\n").unwrap();
        let file = std::fs::File::options().write(true).open(&log).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(60)).unwrap();
        let mut crash = exit(RestartCause::Crash);
        add(&mut crash, &log, 0);
        assert!(crash.details.is_empty());
    }

    #[test]
    fn lines_of_the_run_before_are_not_told_again() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("err.log");
        let run = |text: &str, cause: RestartCause, before: u64| {
            let old = std::fs::read_to_string(&log).unwrap_or_default();
            std::fs::write(&log, old + text).unwrap();
            let mut end = exit(cause);
            let now = add(&mut end, &log, before);
            (now, end.details.get("stderr").cloned().unwrap_or_default())
        };
        let (first, words) = run("one\n", RestartCause::Crash, 0);
        assert_eq!(words, "one");
        // Whoever asked for that end.
        let (second, words) = run("two\n", RestartCause::Manual, first);
        assert_eq!(words, "");
        let (third, words) = run("three\nfour\n", RestartCause::Crash, second);
        assert_eq!(words, "three\nfour");
        let (fourth, words) = run("", RestartCause::Crash, third);
        assert_eq!((fourth, &*words), (third, ""));
        // It was rotated.
        std::fs::write(&log, "").unwrap();
        assert_eq!(run("five\n", RestartCause::Crash, fourth).1, "five");
    }
}
