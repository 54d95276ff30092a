//! History: what was measured, in three tiers, and how it is asked for.
//!
//! Samples are first rows of [`super::recent`]. [`fold`] makes them blocks of an hour, these
//! blocks of minutes, and these blocks of hours; a block is replaced as a whole, and what comes
//! late goes to its place. [`read`] takes for each stretch of time the tier that fits the steps
//! that are asked for, and the next best where that one has nothing.

mod block;
mod column;
mod fold;
pub(super) mod metric;
mod read;
mod steps;

use wire::{AppName, Instance, ServerId, Time};

pub use fold::{Folded, Tier};

const HOUR: i64 = 3_600_000;

/// Whose history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An app's, every instance apart.
    App(AppName),
    /// The machine's: `cpu` (ratio of all its cores), `memory` and `memory_total` (bytes used
    /// and there), `disk` and `disk_total` likewise, `load`.
    Host,
}

/// Most steps of one answer, as Prometheus has it.
pub const MAX_STEPS: u32 = 11_000;
/// Most steps of all series of an answer together: some tens of megabytes as text.
pub const MAX_POINTS: usize = 300_000;

/// At least `step` and 10 s, up to a length that people know; all in milliseconds.
pub fn known_step(step: i64) -> i64 {
    const KNOWN: [i64; 14] =
        [10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 3 * 3600, 6 * 3600, 12 * 3600];
    const DAY: i64 = 86_400_000;
    let known = KNOWN.into_iter().map(|seconds| seconds * 1000).find(|known| *known >= step);
    known.unwrap_or_else(|| (step + DAY - 1) / DAY * DAY)
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct HistoryQuery {
    /// Of this server.
    pub server: ServerId,
    /// Of what.
    pub subject: Subject,
    /// These metrics; all when empty.
    pub metrics: Vec<String>,
    /// From here on.
    pub from: Time,
    /// To before this.
    pub to: Time,
    /// Length of a step in milliseconds, at least 1; steps begin at multiples of it.
    pub step_millis: i64,
}

/// One step of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Start of the step.
    pub time: Time,
    /// Least value.
    pub min: f64,
    /// Mean of the values.
    pub mean: f64,
    /// Greatest value.
    pub max: f64,
}

/// A stretch of time for a chart: about so many steps, of a length that people know.
#[derive(Clone, Debug)]
pub struct WindowQuery {
    /// Of this server.
    pub server: ServerId,
    /// Of what.
    pub subject: Subject,
    /// These metrics; all when empty.
    pub metrics: Vec<String>,
    /// From here on.
    pub from: Time,
    /// To before this.
    pub to: Time,
    /// At most so many steps, 1 to 11,000.
    pub points: u32,
}

/// What a [`WindowQuery`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Length of a step in milliseconds. Two neighbours further apart have a gap between them.
    pub step_millis: i64,
    /// By metric and instance.
    pub series: Vec<Series>,
}

/// One metric of one instance, or of the machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Which process; `None` for the machine.
    pub instance: Option<Instance>,
    /// `cpu` (cores), `memory` (bytes), `restarts`, `threads`, `open_fds`, what Node.js tells,
    /// or the application's own.
    pub metric: String,
    /// Its unit; empty for a plain number.
    pub unit: String,
    /// The steps that have a value, oldest first.
    pub points: Vec<Point>,
}

impl Series {
    /// Whether it is of a process in this PM2 of several.
    pub fn is_in(&self, home: &str) -> bool {
        self.instance.as_ref().is_some_and(|it| it.pm2_home.as_deref() == Some(home))
    }
}
