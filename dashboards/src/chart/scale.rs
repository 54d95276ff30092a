//! From times and values to places, and to the paths that go through them.

use std::fmt::Write;

use wire::Time;

use super::columns::Column;

// Of a drawing in CSS pixels, from the top: room for flags, the plot, room for times.
pub(crate) const TOP: f64 = 18.0;
pub(crate) const PLOT: f64 = 130.0;
pub(crate) const BOTTOM: f64 = TOP + PLOT;
pub(crate) const HEIGHT: f64 = BOTTOM + 20.0;

/// A path's own units, across and down: the plot is stretched to what the page gives it.
const UNITS: f64 = 1000.0;

/// See the module.
pub(super) struct Scale {
    pub(super) from: Time,
    pub(super) to: Time,
    /// The values at the lower and at the upper edge.
    pub(super) bottom: f64,
    pub(super) top: f64,
}

/// A moment in percent of the width, to a tenth.
pub(super) fn percent_of(from: Time, to: Time, time: Time) -> f64 {
    let span = to.millis_since(from).max(1) as f64;
    (time.millis_since(from) as f64 / span * 1000.0).round() / 10.0
}

impl Scale {
    /// Distance of a value from the top in CSS pixels, to a tenth.
    pub(super) fn pixel(&self, value: f64) -> f64 {
        ((TOP + PLOT * self.down(value)) * 10.0).round() / 10.0
    }

    /// The same as a fraction of the height.
    fn down(&self, value: f64) -> f64 {
        (self.top - value) / (self.top - self.bottom)
    }

    fn place(&self, column: &Column, value: f64) -> (i32, i32) {
        let span = self.to.millis_since(self.from).max(1) as f64;
        let at = |time: Time| time.millis_since(self.from) as f64 / span;
        let x = (at(column.first) + at(column.last)) / 2.0;
        ((x * UNITS).round() as i32, (self.down(value) * UNITS).round() as i32)
    }

    /// The line through the means.
    pub(super) fn path(&self, piece: &[Column]) -> String {
        let mut path = through(piece.iter().map(|column| self.place(column, column.mean)));
        if piece.len() == 1 {
            // A line of no length: its round end makes it a dot.
            path.push_str("h0");
        }
        path
    }

    /// The area from least to greatest; empty where there is none.
    pub(super) fn band(&self, piece: &[Column]) -> String {
        if piece.len() < 2 || piece.iter().all(|column| column.max <= column.min) {
            return String::new();
        }
        let there = piece.iter().map(|column| self.place(column, column.max));
        let back = piece.iter().rev().map(|column| self.place(column, column.min));
        let mut path = through(there.chain(back));
        path.push('z');
        path
    }
}

/// A path through places, each told by its distance from the one before: short on the wire.
fn through(places: impl Iterator<Item = (i32, i32)>) -> String {
    let mut path = String::new();
    let mut before: Option<(i32, i32)> = None;
    for (x, y) in places {
        let (letter, right, down) = match before {
            None => ('M', x, y),
            Some((x0, y0)) => ('l', x - x0, y - y0),
        };
        let apart = if down < 0 { "" } else { " " };
        let _ = write!(path, "{letter}{right}{apart}{down}");
        before = Some((x, y));
    }
    path
}

/// The places that a path goes through.
#[cfg(test)]
pub(super) fn walk(path: &str) -> Vec<(i32, i32)> {
    let mut places = Vec::new();
    let (mut x, mut y) = (0, 0);
    for step in path.split_inclusive(['M', 'l', 'h', 'z']).collect::<Vec<_>>().windows(2) {
        let absolute = step[0].ends_with('M');
        let text = step[1].trim_end_matches(char::is_alphabetic).replace('-', " -");
        let numbers: Vec<i32> = text.split_whitespace().map(|it| it.parse().unwrap()).collect();
        let [right, down] = numbers[..] else { continue };
        (x, y) = if absolute { (right, down) } else { (x + right, y + down) };
        places.push((x, y));
    }
    places
}
