//! What happened while something was measured: flags on the time axis.

use wire::{Severity, Time};

use super::scale::percent_of;
use crate::format;

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoteKind {
    /// Something was started, stopped or reloaded.
    Change,
    /// Another version took over.
    Deploy,
    /// Worth a look.
    Warning,
    /// Something broke.
    Fault,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Note {
    /// When.
    pub time: Time,
    /// Of what kind.
    pub kind: NoteKind,
    /// What, in one line.
    pub text: String,
}

impl NoteKind {
    /// Of an event: by its kind, else by how bad it is.
    pub fn of(kind: &str, severity: Severity) -> Self {
        match (kind, severity) {
            (_, Severity::Error | Severity::Critical) => Self::Fault,
            (_, Severity::Warning) => Self::Warning,
            ("deploy_healthy" | "slot_rolled_back", _) => Self::Deploy,
            _ => Self::Change,
        }
    }

    /// The class of the style sheet, and part of the drawing's id.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Deploy => "deploy",
            Self::Warning => "warn",
            Self::Fault => "bad",
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Deploy => "deployment",
            Self::Warning => "warning",
            Self::Fault => "fault",
        }
    }
}

/// A flag: one note, or several that would stand on each other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Flag {
    /// In percent of the width.
    pub(crate) at: f64,
    /// The worst of its notes.
    pub(crate) kind: NoteKind,
    pub(crate) text: String,
}

/// Most flags of a chart: closer ones share one.
const PLACES: i64 = 48;
/// Longest text of one flag, in characters.
const TEXT: usize = 160;

impl Flag {
    /// The flags of a stretch of time, from left to right.
    pub(crate) fn all(notes: &[Note], from: Time, to: Time) -> Vec<Self> {
        let width = (to.millis_since(from) / PLACES).max(1);
        let mut inside: Vec<&Note> =
            notes.iter().filter(|note| note.time >= from && note.time <= to).collect();
        inside.sort_by_key(|note| note.time);
        let place = |note: &Note| note.time.millis_since(from) / width;
        inside
            .chunk_by(|a, b| place(a) == place(b))
            .filter_map(|near| {
                // The worst, and of these the latest.
                let worst = near.iter().max_by_key(|note| (note.kind, note.time))?;
                let mut text = format!("{} {}", format::clock(worst.time), worst.text);
                if near.len() > 1 {
                    let more = format::count(near.len() as u64 - 1);
                    text = format!("{}, and {more} more", format::cut(&text, TEXT));
                }
                let at = percent_of(from, to, worst.time);
                Some(Self { at, kind: worst.kind, text: format::cut(&text, TEXT + 20) })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(seconds: i64, kind: NoteKind, text: &str) -> Note {
        Note { time: Time::from_millis(seconds * 1000), kind, text: text.into() }
    }

    #[test]
    fn what_stands_close_shares_a_flag_that_shows_the_worst() {
        let notes = [
            note(1800, NoteKind::Fault, "exit code 1"),
            note(1795, NoteKind::Change, "restart"),
            note(1810, NoteKind::Change, "online"),
            note(60, NoteKind::Deploy, "deployed"),
            note(9999, NoteKind::Fault, "not in this time"),
        ];
        let flags = Flag::all(&notes, Time::from_millis(0), Time::from_millis(3_600_000));
        let told: Vec<_> = flags.iter().map(|it| (it.at, it.kind, it.text.as_str())).collect();
        assert_eq!(
            told,
            [
                (1.7, NoteKind::Deploy, "1970-01-01 00:01:00 deployed"),
                (49.9, NoteKind::Change, "1970-01-01 00:29:55 restart"),
                (50.0, NoteKind::Fault, "1970-01-01 00:30:00 exit code 1, and 1 more"),
            ]
        );
    }

    #[test]
    fn a_thousand_faults_stay_few_flags() {
        let notes: Vec<_> =
            (0..1000).map(|it| note(it * 3, NoteKind::Fault, &"x".repeat(500))).collect();
        let flags = Flag::all(&notes, Time::from_millis(0), Time::from_millis(3_000_000));
        assert!(flags.len() <= 49 && flags.iter().all(|flag| flag.text.chars().count() < 190));
    }
}
