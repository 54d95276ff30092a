//! What a process that ended by itself wrote to stderr last.

use std::path::Path;
use std::time::Duration;

use wire::{Event, EventKind, RestartCause};

use crate::logs::Tail;

/// How many lines are kept, and how many characters at the most.
const LINES: usize = 10;
const LENGTH: usize = 2_000;
/// Older lines are of an earlier end.
const WITHIN: Duration = Duration::from_secs(5);

/// Adds the last lines of `log` to an exit that nobody asked for.
pub(super) fn add(event: &mut Event, log: &Path) {
    let by_itself = matches!(event.cause, Some(RestartCause::Crash | RestartCause::Oom));
    if event.kind != EventKind::EXIT || !by_itself {
        return;
    }
    let fresh = std::fs::metadata(log)
        .and_then(|metadata| metadata.modified())
        .is_ok_and(|at| at.elapsed().is_ok_and(|ago| ago < WITHIN));
    if !fresh {
        return;
    }
    let Ok((_, lines)) = Tail::open(log, LINES) else { return };
    let text = lines.join("\n");
    let skip = text.chars().count().saturating_sub(LENGTH);
    let text: String = text.chars().skip(skip).collect();
    if !text.is_empty() {
        event.details.insert("stderr".to_owned(), text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Severity;

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
        add(&mut crash, &log);
        let words = &crash.details["stderr"];
        assert!(words.ends_with("y\nlast") && words.chars().count() == LENGTH, "{words}");
        let mut asked = exit(RestartCause::Manual);
        add(&mut asked, &log);
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
        add(&mut crash, &log);
        assert!(crash.details.is_empty());
    }
}
