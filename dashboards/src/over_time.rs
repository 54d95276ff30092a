use wire::Time;

use crate::chart::scale::{BOTTOM, HEIGHT, PLOT, TOP};
use crate::chart::{Chart, Drawing, Flag, Note, NoteKind, Range, RangeLink};
use crate::format::counted;
use crate::links::query;
use crate::rows::Moment;

/// What was measured, over a stretch of time that the visitor chooses.
#[derive(Clone, Debug)]
pub struct OverTime {
    /// How long that is.
    pub range: Range,
    /// Its beginning.
    pub from: Time,
    /// Its end.
    pub to: Time,
    /// What to draw; all over that time.
    pub charts: Vec<Chart>,
    /// What happened then, in any order.
    pub notes: Vec<Note>,
    /// Why it cannot be told now, in words; the charts are then left empty.
    pub problem: Option<String>,
}

/// The same, worked out.
pub(crate) struct Drawn {
    pub(crate) ranges: Vec<RangeLink>,
    pub(crate) charts: Vec<Drawing>,
    pub(crate) flags: Vec<Flag>,
    /// The kinds of flag that there are, for the key.
    pub(crate) kinds: Vec<NoteKind>,
    /// The notes in words, newest first.
    pub(crate) notes: Vec<(Moment, NoteKind, String)>,
    /// `12 things happened`
    pub(crate) number: String,
    pub(crate) problem: Option<String>,
    /// Where the same numbers are given as CSV.
    pub(crate) csv: Option<String>,
    pub(crate) shape: Shape,
}

/// Measures of a drawing, in CSS pixels.
pub(crate) struct Shape {
    pub(crate) top: f64,
    pub(crate) plot: f64,
    pub(crate) bottom: f64,
    pub(crate) height: f64,
}

/// Most notes that are listed in words.
const NOTES: usize = 50;

impl OverTime {
    /// `path` is the page's own address, empty where it has none, `more` what else stands in it;
    /// `api` that of its numbers.
    pub(crate) fn draw(
        &self,
        path: &str,
        more: &[(&str, &str)],
        api: Option<&str>,
        now: Time,
    ) -> Drawn {
        let flags = Flag::all(&self.notes, self.from, self.to);
        let mut kinds: Vec<NoteKind> = flags.iter().map(|flag| flag.kind).collect();
        kinds.sort_unstable_by(|a, b| b.cmp(a));
        kinds.dedup();
        let mut inside: Vec<&Note> =
            self.notes.iter().filter(|it| it.time >= self.from && it.time <= self.to).collect();
        inside.sort_by_key(|note| std::cmp::Reverse(note.time));
        Drawn {
            ranges: match path {
                "" => Vec::new(),
                path => RangeLink::all(path, more, self.range),
            },
            charts: self.charts.iter().map(Chart::draw).collect(),
            kinds,
            number: counted(inside.len() as u64, "event"),
            notes: inside
                .iter()
                .take(NOTES)
                .map(|it| (Moment::new(it.time, now), it.kind, crate::format::cut(&it.text, 300)))
                .collect(),
            flags,
            problem: self.problem.clone(),
            csv: api.map(|api| {
                let fields = [("from", self.range.back()), ("format", "csv")];
                query(&format!("{api}/metrics"), &[&fields[..], more].concat())
            }),
            shape: Shape { top: TOP, plot: PLOT, bottom: BOTTOM, height: HEIGHT },
        }
    }
}
