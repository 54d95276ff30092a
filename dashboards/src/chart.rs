//! Line charts as SVG, made on the server: axes, units, a band from minimum to maximum, and
//! gaps where nothing was measured. Pure: numbers in, text out.

use std::fmt::Write;

use wire::Time;

use crate::format;
use axis::{span_in_words, time_ticks, value_ticks};
use columns::{Column, mean_of, pieces, usual_distance};
use scale::{Scale, percent_of};

mod axis;
mod columns;
mod flags;
mod range;
pub(crate) mod scale;

pub(crate) use flags::Flag;
pub use flags::{Note, NoteKind};
pub use range::Range;
pub(crate) use range::RangeLink;

/// What the numbers of a chart are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Cores used: written as percent of one core.
    Cores,
    /// A share of a whole, 0 to 1: written as percent.
    Share,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// So many a second.
    Rate,
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
    /// What is counted, or what there is in all; small beside the title. May be empty.
    pub about: String,
    /// Left edge.
    pub from: Time,
    /// Right edge.
    pub to: Time,
    /// Distance of two points in milliseconds; a greater one (by half and more) is a gap, unless
    /// most points of a series are as far apart: then it is measured less often.
    pub step_millis: i64,
    /// The lines; at most [`MAX_SERIES`] are drawn.
    pub series: Vec<Series>,
}

/// Most lines in one chart.
pub const MAX_SERIES: usize = 6;

/// Most series that still get a band each.
const MAX_BANDS: usize = 3;

/// A chart worked out to the last coordinate: what the template writes down.
#[derive(Clone, Debug)]
pub(crate) struct Drawing {
    pub(crate) title: String,
    /// `percent of one core`
    pub(crate) unit: String,
    /// The whole in words, for who does not see it.
    pub(crate) label: String,
    /// In CSS pixels from the top.
    pub(crate) y_ticks: Vec<Tick>,
    /// In percent of the width.
    pub(crate) x_ticks: Vec<Tick>,
    pub(crate) lines: Vec<Line>,
    /// Series that were not drawn.
    pub(crate) left_out: usize,
    /// There is nothing to draw.
    pub(crate) empty: bool,
    /// For a script that reads the drawing: the edges in milliseconds, the values at the bottom and
    /// at the top, and the word for its unit.
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) bottom: f64,
    pub(crate) top: f64,
    pub(crate) word: &'static str,
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
            Self::Share => "percent",
            Self::Bytes | Self::Seconds | Self::Count => "",
            Self::Rate => "per second",
        }
    }

    /// Only an application's own metric may be below 0: all else is measured, and nought then.
    fn least(self) -> f64 {
        match self {
            Self::Count => f64::MIN,
            _ => 0.0,
        }
    }

    /// How a script writes a value: one word for each way of [`Unit::write`].
    fn word(self) -> &'static str {
        match self {
            Self::Cores | Self::Share => "percent",
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
            Self::Rate => "rate",
            Self::Count => "",
        }
    }

    fn write(self, value: f64) -> String {
        match self {
            Self::Cores | Self::Share => format::percent(value),
            Self::Bytes => format::bytes(value.max(0.0) as u64),
            Self::Seconds if value < 1.0 => format!("{} ms", format::number(value * 1000.0)),
            Self::Seconds => format!("{} s", format::number(value)),
            Self::Rate => format!("{} /s", format::number(value)),
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
            .map(|series| {
                let step = step.max(usual_distance(&series.points, step));
                pieces(&series.points, (self.from, self.to), step, self.unit.least())
            })
            .collect();
        let columns = || shown.iter().flatten().flatten();
        let greatest = columns().map(|column| column.max).fold(0.0, f64::max);
        let lowest = columns().map(|column| column.min).fold(0.0, f64::min);
        let y_ticks = value_ticks(self.unit, lowest, greatest);
        let bottom = y_ticks.first().map_or(0.0, |(value, _)| *value);
        let top = y_ticks.last().map_or(1.0, |(value, _)| *value);
        let scale = Scale { from: self.from, to: self.to, bottom, top };
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
        let empty = columns().next().is_none();
        let unit = [self.about.as_str(), self.unit.words()];
        let unit: Vec<&str> = unit.into_iter().filter(|text| !text.is_empty()).collect();
        Drawing {
            label: self.in_words(&lines, empty, &span_in_words(self.from, self.to)),
            title: self.title.clone(),
            unit: unit.join(", "),
            y_ticks: y_ticks
                .into_iter()
                .map(|(value, text)| Tick { at: scale.pixel(value), text })
                .collect(),
            x_ticks: time_ticks(self.from, self.to)
                .into_iter()
                .map(|(time, text)| Tick { at: percent_of(self.from, self.to, time), text })
                .collect(),
            lines,
            left_out: self.series.len().saturating_sub(MAX_SERIES),
            empty,
            from: self.from.as_millis(),
            to: self.to.as_millis(),
            bottom,
            top,
            word: self.unit.word(),
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
            about: String::new(),
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
    fn what_is_measured_less_often_than_steps_come_is_a_line_with_its_gaps() {
        let points = [0, 60, 120, 180, 600, 660].map(|seconds| point(seconds, 0.1)).to_vec();
        let path = chart(points).draw().lines[0].path.clone();
        assert_eq!(path.matches('M').count(), 2, "{path}");
        // Once an hour is no measuring of an hour's chart.
        let rare = [0, 1800, 3600].map(|seconds| point(seconds, 0.1)).to_vec();
        assert_eq!(chart(rare).draw().lines[0].path.matches('M').count(), 3);
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

    /// Of an application's own: nothing else can be below 0.
    #[test]
    fn what_is_below_nought_is_drawn_and_told_as_it_is() {
        let lag = |points: Vec<Point>| Chart { unit: Unit::Count, ..chart(points) }.draw();
        let point = |seconds: i64, value: f64| Point {
            time: at(seconds),
            min: value,
            mean: value,
            max: value,
        };
        let drawing = lag(vec![point(0, -35.0), point(20, -10.0), point(40, 15.0)]);
        let line = &drawing.lines[0];
        let told = (line.now.as_str(), line.mean.as_str(), line.max.as_str());
        assert_eq!(told, ("15", "-10", "15"));
        assert_eq!((drawing.bottom, drawing.top), (-40.0, 20.0));
        let ticks: Vec<&str> = drawing.y_ticks.iter().map(|tick| tick.text.as_str()).collect();
        assert_eq!(ticks, ["-40", "-20", "0", "20"]);
        assert!(line.path.starts_with("M0 917l"), "11/12 of the height: {}", line.path);
        let below = lag(vec![point(0, -0.004), point(10, -0.003)]);
        assert_eq!(
            (below.lines[0].now.as_str(), below.lines[0].max.as_str()),
            ("-0.003", "-0.003")
        );
        assert_eq!(below.top, 0.0);
        let memory = Chart { unit: Unit::Bytes, ..chart(vec![point(0, -5.0)]) }.draw();
        assert_eq!(memory.bottom, 0.0);
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
        for (x, y) in scale::walk(&drawing.lines[0].band) {
            assert!((0..=1000).contains(&x) && (0..=1000).contains(&y), "{x} {y}");
        }
    }

    #[test]
    fn lines_go_where_the_values_are() {
        let drawing = chart(vec![point(0, 0.0), point(20, 0.2), point(40, 0.05)]).draw();
        let chart = Chart { step_millis: 20_000, ..chart(vec![]) };
        let points = vec![point(0, 0.0), point(1800, 0.1), point(3600, 0.2)];
        let chart = Chart {
            step_millis: 1_800_000,
            series: vec![Series { label: String::new(), points }],
            ..chart
        };
        assert_eq!(drawing.top, 0.4);
        assert_eq!(scale::walk(&chart.draw().lines[0].path), [(0, 1000), (500, 750), (1000, 500)]);
    }

    #[test]
    fn the_label_says_what_the_picture_shows() {
        assert_eq!(
            chart(vec![point(0, 0.1), point(10, 0.3)]).draw().label,
            "CPU, 22:00 to 23:00 UTC: now 30 %, mean 20 %, max 60 %"
        );
    }
}
