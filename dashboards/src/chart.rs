//! Line charts as SVG, made on the server: axes, units, a band from minimum to maximum, and
//! gaps where nothing was measured. Pure: numbers in, text out.

use std::fmt::Write;

use wire::Time;

use crate::format;
use axis::{span_in_words, time_ticks, value_ticks};
use columns::{Column, mean_of, pieces};

mod axis;
mod columns;

/// What the numbers of a chart are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Cores used: written as percent of one core.
    Cores,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// A plain number.
    Count,
}

/// One step of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Start of the step.
    pub time: Time,
    /// Least value within the step.
    pub min: f64,
    /// Mean of the step.
    pub mean: f64,
    /// Greatest value within the step.
    pub max: f64,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Series {
    /// What it is: `instance 0`. May be empty when it is the only one.
    pub label: String,
    /// Its points, oldest first.
    pub points: Vec<Point>,
}

/// One chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What it shows: `CPU`.
    pub title: String,
    /// What its numbers are.
    pub unit: Unit,
    /// Left edge.
    pub from: Time,
    /// Right edge.
    pub to: Time,
    /// Distance of two points in milliseconds; a greater one (by half and more) is a gap.
    pub step_millis: i64,
    /// The lines; at most [`MAX_SERIES`] are drawn.
    pub series: Vec<Series>,
}

/// Most lines in one chart.
pub const MAX_SERIES: usize = 6;

// The drawing's own units: as many as CSS pixels on a narrow telephone, so that its letters
// are never drawn smaller than they are set.
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 170.0;
const LEFT: f64 = 54.0;
const RIGHT: f64 = 392.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 148.0;

/// Most series that still get a band each.
const MAX_BANDS: usize = 3;

/// A chart worked out to the last coordinate: what the template writes down.
#[derive(Clone, Debug)]
pub(crate) struct Drawing {
    pub(crate) title: String,
    /// `percent of one core`
    pub(crate) unit: &'static str,
    /// The whole in words, for who does not see it.
    pub(crate) label: String,
    pub(crate) view_box: String,
    pub(crate) y_ticks: Vec<Tick>,
    pub(crate) x_ticks: Vec<Tick>,
    pub(crate) lines: Vec<Line>,
    /// Series that were not drawn.
    pub(crate) left_out: usize,
    /// There is nothing to draw.
    pub(crate) empty: bool,
    /// `12:00 to 13:00 UTC`
    pub(crate) span: String,
}

/// A line of the grid with its text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tick {
    pub(crate) at: f64,
    pub(crate) text: String,
}

/// A series worked out.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Which of the colours and dashes.
    pub(crate) class: String,
    pub(crate) label: String,
    /// Path of the mean; gaps are gaps.
    pub(crate) path: String,
    /// Path of the area between minimum and maximum; empty for none.
    pub(crate) band: String,
    /// The newest value, its mean and its greatest, for people.
    pub(crate) now: String,
    pub(crate) mean: String,
    pub(crate) max: String,
}

impl Unit {
    fn words(self) -> &'static str {
        match self {
            Self::Cores => "percent of one core",
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
            Self::Count => "",
        }
    }

    fn write(self, value: f64) -> String {
        match self {
            Self::Cores => format::percent(value),
            Self::Bytes => format::bytes(value.max(0.0) as u64),
            Self::Seconds if value < 1.0 => format!("{} ms", format::number(value * 1000.0)),
            Self::Seconds => format!("{} s", format::number(value)),
            Self::Count => format::number(value),
        }
    }
}

impl Chart {
    /// Works out what is drawn where.
    pub(crate) fn draw(&self) -> Drawing {
        let step = self.step_millis.max(1);
        let shown: Vec<Vec<Vec<Column>>> = self
            .series
            .iter()
            .take(MAX_SERIES)
            .map(|series| pieces(&series.points, self.from, self.to, step))
            .collect();
        let columns = || shown.iter().flatten().flatten();
        let greatest = columns().map(|column| column.max).fold(0.0, f64::max);
        let y_ticks = value_ticks(self.unit, greatest);
        let scale = Scale {
            from: self.from,
            span: self.to.millis_since(self.from).max(1) as f64,
            top: y_ticks.last().map_or(1.0, |(value, _)| *value),
        };
        let lines: Vec<Line> = shown
            .iter()
            .zip(&self.series)
            .enumerate()
            .map(|(index, (pieces, series))| Line {
                class: format!("c{index}"),
                label: series.label.clone(),
                path: pieces.iter().map(|piece| scale.path(piece)).collect(),
                band: match shown.len() {
                    ..=MAX_BANDS => pieces.iter().map(|piece| scale.band(piece)).collect(),
                    _ => String::new(),
                },
                now: self.words_of(pieces.last().and_then(|piece| piece.last()).map(|c| c.newest)),
                mean: self.words_of(mean_of(pieces)),
                max: self
                    .words_of(pieces.iter().flatten().map(|column| column.max).reduce(f64::max)),
            })
            .collect();
        let span = span_in_words(self.from, self.to);
        let empty = columns().next().is_none();
        Drawing {
            label: self.in_words(&lines, empty, &span),
            title: self.title.clone(),
            unit: self.unit.words(),
            view_box: format!("0 0 {WIDTH} {HEIGHT}"),
            y_ticks: y_ticks
                .into_iter()
                .map(|(value, text)| Tick { at: round(scale.y(value)), text })
                .collect(),
            x_ticks: time_ticks(self.from, self.to)
                .into_iter()
                .map(|(time, text)| Tick { at: round(scale.x(time)), text })
                .collect(),
            lines,
            left_out: self.series.len().saturating_sub(MAX_SERIES),
            empty,
            span,
        }
    }

    fn words_of(&self, value: Option<f64>) -> String {
        value.map_or_else(|| format::NOTHING.to_owned(), |value| self.unit.write(value))
    }

    fn in_words(&self, lines: &[Line], empty: bool, span: &str) -> String {
        let mut text = format!("{}, {span}: ", self.title);
        if empty {
            text.push_str("no readings");
        }
        for (index, line) in lines.iter().enumerate().filter(|_| !empty) {
            let _ = write!(
                text,
                "{}{}{}now {}, mean {}, max {}",
                if index > 0 { "; " } else { "" },
                line.label,
                if line.label.is_empty() { "" } else { ": " },
                line.now,
                line.mean,
                line.max
            );
        }
        text
    }
}

struct Scale {
    from: Time,
    span: f64,
    top: f64,
}

impl Scale {
    fn x(&self, time: Time) -> f64 {
        LEFT + (RIGHT - LEFT) * time.millis_since(self.from) as f64 / self.span
    }

    fn y(&self, value: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * value / self.top
    }

    fn middle(&self, column: &Column) -> f64 {
        (self.x(column.first) + self.x(column.last)) / 2.0
    }

    fn path(&self, piece: &[Column]) -> String {
        let mut path = String::new();
        for (index, column) in piece.iter().enumerate() {
            let letter = if index == 0 { 'M' } else { 'L' };
            let (x, y) = (round(self.middle(column)), round(self.y(column.mean)));
            let _ = write!(path, "{letter}{x} {y}");
        }
        if piece.len() == 1 {
            // A line of no length: its round end makes it a dot.
            path.push_str("h0");
        }
        path
    }

    fn band(&self, piece: &[Column]) -> String {
        if piece.len() < 2 || piece.iter().all(|column| column.max <= column.min) {
            return String::new();
        }
        let mut path = String::new();
        let there = piece.iter().map(|column| (column, column.max));
        let back = piece.iter().rev().map(|column| (column, column.min));
        for (index, (column, value)) in there.chain(back).enumerate() {
            let letter = if index == 0 { 'M' } else { 'L' };
            let (x, y) = (round(self.middle(column)), round(self.y(value)));
            let _ = write!(path, "{letter}{x} {y}");
        }
        path.push('Z');
        path
    }
}

/// To a tenth: enough for the eye, and short on the wire.
fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_700_000_000_000 - 1_700_000_000_000 % 3_600_000;

    fn at(seconds: i64) -> Time {
        Time::from_millis(START + seconds * 1000)
    }

    fn point(seconds: i64, mean: f64) -> Point {
        Point { time: at(seconds), min: mean / 2.0, mean, max: mean * 2.0 }
    }

    fn chart(points: Vec<Point>) -> Chart {
        Chart {
            title: "CPU".into(),
            unit: Unit::Cores,
            from: at(0),
            to: at(3600),
            step_millis: 10_000,
            series: vec![Series { label: String::new(), points }],
        }
    }

    #[test]
    fn a_gap_is_a_gap() {
        let points = [0, 10, 20, 60, 70, 200].map(|seconds| point(seconds, 0.1)).to_vec();
        let drawing = chart(points).draw();
        let path = &drawing.lines[0].path;
        assert_eq!(path.matches('M').count(), 3, "{path}");
        assert!(path.ends_with("h0"), "a lonely point is a dot: {path}");
    }

    #[test]
    fn late_samples_are_no_gap() {
        let points = [0, 14, 22, 36].map(|seconds| point(seconds, 0.1)).to_vec();
        assert_eq!(chart(points).draw().lines[0].path.matches('M').count(), 1);
    }

    #[test]
    fn many_points_keep_their_extremes_and_stay_small() {
        let mut points: Vec<_> = (0..36_000)
            .map(|tenth| Point { time: at(0).plus_millis(tenth * 100), ..point(0, 0.5) })
            .collect();
        points[20_000].max = 7.9;
        let drawing = Chart { step_millis: 100, ..chart(points) }.draw();
        let line = &drawing.lines[0];
        assert!(line.path.len() < 3_000, "{}", line.path.len());
        assert_eq!((line.max.as_str(), line.mean.as_str()), ("790 %", "50 %"));
        assert_eq!(drawing.y_ticks.last().map(|tick| tick.text.as_str()), Some("800 %"));
        assert_eq!(line.path.matches('M').count(), 1);
    }

    #[test]
    fn what_is_no_number_or_out_of_range_is_left_out() {
        let points = vec![point(-5, 1.0), point(10, f64::NAN), point(20, f64::INFINITY)];
        let drawing = chart(points).draw();
        assert!(drawing.empty);
        assert!(drawing.label.ends_with("no readings"), "{}", drawing.label);
        let backwards = chart(vec![point(20, 0.1), point(10, 0.9), point(30, 0.1)]).draw();
        assert_eq!(backwards.lines[0].max, "20 %");
    }

    #[test]
    fn everything_is_drawn_inside() {
        let drawing = chart(vec![point(0, 0.0), point(10, 3.3), point(3600, 1.0)]).draw();
        let numbers: Vec<f64> = drawing.lines[0]
            .band
            .split(|char: char| !char.is_ascii_digit() && char != '.')
            .filter_map(|text| text.parse().ok())
            .collect();
        for pair in numbers.chunks(2) {
            assert!((LEFT..=RIGHT).contains(&pair[0]) && (TOP..=BOTTOM).contains(&pair[1]));
        }
    }

    #[test]
    fn the_label_says_what_the_picture_shows() {
        assert_eq!(
            chart(vec![point(0, 0.1), point(10, 0.3)]).draw().label,
            "CPU, 22:00 to 23:00 UTC: now 30 %, mean 20 %, max 60 %"
        );
    }
}
