//! What the sections of `make bench` share: how long to measure, where to print, which targets
//! there are; what processes use; tables of figures side by side.

pub mod buckets;
pub mod measure;
pub mod table;

use std::fmt::Display;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How to measure, and what was measured against a target.
#[derive(Debug)]
pub struct Bench {
    /// How long nothing is asked, to see what something uses at rest: `BENCH_REST`, in seconds
    /// (15).
    pub rest: Duration,
    /// How often a measurement is repeated whose figures differ from run to run: `BENCH_RUNS`
    /// (3).
    pub runs: usize,
    targets: Mutex<Vec<Target>>,
    section: Mutex<&'static str>,
}

#[derive(Debug)]
struct Target {
    section: &'static str,
    what: String,
    measured: f64,
    most: f64,
}

impl Bench {
    /// From `BENCH_REST` and `BENCH_RUNS`.
    ///
    /// # Errors
    /// One of them is no number, or out of range.
    pub fn from_environment() -> Result<Self, String> {
        let rest = number("BENCH_REST", 15, 1..=3600)?;
        let runs = number("BENCH_RUNS", 3, 1..=100)?;
        Ok(Self {
            rest: Duration::from_secs(rest),
            runs: usize::try_from(runs).unwrap_or(1),
            targets: Mutex::default(),
            section: Mutex::new(""),
        })
    }

    /// Everything that follows belongs to this section.
    pub fn begin(&self, section: &'static str, about: &str) {
        *self.section.lock().unwrap_or_else(PoisonError::into_inner) = section;
        self.print(format_args!("\n== {section}: {about}"));
    }

    /// A line, or a [table](table::Table).
    pub fn print(&self, what: impl Display) {
        // A closed pipe (`make bench | head`) is no reason to stop measuring in the middle.
        let _ = writeln!(std::io::stdout(), "{what}");
    }

    /// What is being done, for who waits.
    pub fn progress(&self, what: impl Display) {
        eprintln!("bench: {what}");
    }

    /// A figure that is to be at most so much; told again at the end of the run.
    pub fn target(&self, what: impl Into<String>, measured: f64, most: f64) {
        let section = *self.section.lock().unwrap_or_else(PoisonError::into_inner);
        let target = Target { section, what: what.into(), measured, most };
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).push(target);
    }

    /// All targets, and whether they are reached.
    pub fn end(&self) {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        if targets.is_empty() {
            return;
        }
        let head = "target (at most)";
        self.print(format_args!("\n{:<10}{head:<62}{:>10}{:>10}", "section", "measured", "target"));
        for Target { section, what, measured, most } in targets.iter() {
            let verdict = if measured <= most { "reached" } else { "NOT reached" };
            self.print(format_args!(
                "{section:<10}{what:<62}{measured:>10.3}{most:>10.3}  {verdict}"
            ));
        }
    }
}

fn number(name: &str, default: u64, range: std::ops::RangeInclusive<u64>) -> Result<u64, String> {
    let Some(text) = std::env::var_os(name) else { return Ok(default) };
    let text = text.to_string_lossy();
    text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        format!("{name} is {text:?} and must be a number from {} to {}", range.start(), range.end())
    })
}
