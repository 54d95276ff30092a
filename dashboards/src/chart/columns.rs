//! Points to columns: how many points share a place, and where something is missing.

use wire::Time;

use super::Point;

/// Most columns that one series is drawn with: more points than that share a column.
const COLUMNS: i64 = 180;

/// What is drawn at one place: one point, or all points that share a column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Column {
    pub(super) first: Time,
    pub(super) last: Time,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) mean: f64,
    /// Mean of the last point alone.
    pub(super) newest: f64,
    points: f64,
}

/// How far apart the points of a series mostly are, in milliseconds; of what is rarer than every
/// five minutes nothing is said, where steps are shorter.
pub(super) fn usual_distance(points: &[Point], step: i64) -> i64 {
    const LONGEST: i64 = 5 * 60 * 1000;
    let mut distances: Vec<i64> =
        points.windows(2).map(|pair| pair[1].time.millis_since(pair[0].time)).collect();
    let middle = distances.len() / 2;
    if middle == 0 {
        return step;
    }
    let (_, median, _) = distances.select_nth_unstable(middle);
    if *median > LONGEST { step } else { *median }
}

/// The columns of a series, apart where something is missing. No value is less than `least`.
pub(super) fn pieces(
    points: &[Point],
    (from, to): (Time, Time),
    step: i64,
    least: f64,
) -> Vec<Vec<Column>> {
    let width = (to.millis_since(from) / COLUMNS).max(step);
    let mut pieces: Vec<Vec<Column>> = Vec::new();
    for point in points {
        let finite = point.min.is_finite() && point.mean.is_finite() && point.max.is_finite();
        if !finite || point.time < from || point.time > to {
            continue;
        }
        let point = &Point {
            time: point.time,
            min: point.min.max(least),
            mean: point.mean.max(least),
            max: point.max.max(least),
        };
        let column_of = |time: Time| time.millis_since(from) / width;
        let Some(last) = pieces.last_mut().and_then(|piece| piece.last_mut()) else {
            pieces.push(vec![Column::from(point)]);
            continue;
        };
        let apart = point.time.millis_since(last.last);
        if apart < 0 {
            continue;
        }
        if column_of(point.time) == column_of(last.first) {
            last.add(point);
        } else if apart.saturating_mul(2) > step.saturating_mul(3) {
            pieces.push(vec![Column::from(point)]);
        } else if let Some(piece) = pieces.last_mut() {
            piece.push(Column::from(point));
        }
    }
    pieces
}

impl From<&Point> for Column {
    fn from(point: &Point) -> Self {
        Self {
            first: point.time,
            last: point.time,
            min: point.min,
            max: point.max,
            mean: point.mean,
            newest: point.mean,
            points: 1.0,
        }
    }
}

impl Column {
    fn add(&mut self, point: &Point) {
        self.last = point.time;
        self.newest = point.mean;
        self.min = self.min.min(point.min);
        self.max = self.max.max(point.max);
        self.mean = (self.mean * self.points + point.mean) / (self.points + 1.0);
        self.points += 1.0;
    }
}

pub(super) fn mean_of(pieces: &[Vec<Column>]) -> Option<f64> {
    let (sum, number) = pieces.iter().flatten().fold((0.0, 0.0), |(sum, number), column| {
        (sum + column.mean * column.points, number + column.points)
    });
    (number > 0.0).then(|| sum / number)
}
