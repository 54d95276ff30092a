//! Puts what blocks hold into steps of equal length, each with least, mean and greatest value.
//! The same makes minutes of samples, hours of minutes, and the answer to who asks. Nothing is
//! made up for a time without samples.

use std::collections::HashMap;

use super::block::{Block, Column, Columns};
use super::metric::{CPU, CPU_ALL, HOST, Key, Part, RESTARTS, STATUS};

/// Two samples further apart than this make no CPU rate: a mean over so long would hide more
/// than it shows. In milliseconds.
pub(super) const MAX_APART: i64 = 5 * 60 * 1000;
/// CPU is rounded to so many parts of a core by minute and hour.
const PARTS: f64 = 100_000.0;

/// What one step has of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bucket {
    pub(super) start: i64,
    pub(super) count: f64,
    pub(super) sum: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Bucket {
    pub(super) fn mean(&self) -> f64 {
        // Rounding can push a mean of equal values a hair past them.
        (self.sum / self.count).clamp(self.min, self.max)
    }
}

/// A counter as it was read last.
#[derive(Clone, Copy)]
struct Before {
    time: i64,
    counter: f64,
    /// Restarts of a process; what the machine could have worked.
    other: f64,
}

/// See the module.
pub(super) struct Steps {
    length: i64,
    from: i64,
    to: i64,
    before: HashMap<i64, Before>,
    pub(super) buckets: HashMap<(i64, i64), Vec<Bucket>>,
    /// Samples of each step, whatever they had.
    samples: HashMap<i64, f64>,
    /// How many buckets there may still be.
    room: usize,
}

impl Steps {
    /// Steps of `length`, of what is at `from` or later and before `to`.
    pub(super) fn new(length: i64, from: i64, to: i64) -> Self {
        Self {
            length,
            from,
            to,
            before: HashMap::new(),
            buckets: HashMap::new(),
            samples: HashMap::new(),
            room: usize::MAX,
        }
    }

    /// No more than `most` of all metrics together.
    pub(super) fn at_most(self, most: usize) -> Self {
        Self { room: most.saturating_add(1), ..self }
    }

    /// Whether more came than there may be, and was left out.
    pub(super) fn is_over(&self) -> bool {
        self.room == 0
    }

    fn start(&self, time: i64) -> i64 {
        time - time.rem_euclid(self.length)
    }

    /// Samples, later than those before. Of a metric only those in `wanted`.
    pub(super) fn add_samples(&mut self, block: &Block, wanted: impl Fn(i64) -> bool) {
        let (from, to) = (self.from, self.to);
        let order = order(block);
        for time in block.times.iter().copied().filter(|time| (from..to).contains(time)) {
            *self.samples.entry(self.start(time)).or_default() += 1.0;
        }
        for column in &block.columns {
            let Key { owner, metric, .. } = column.key;
            let helps = metric == CPU_ALL && owner == HOST;
            if helps || !wanted(metric) {
                continue;
            }
            let rated;
            let values = match metric {
                CPU => {
                    rated = self.rates(block, column, &order);
                    &rated
                }
                _ => &column.values,
            };
            for (time, value) in block.times.iter().copied().zip(values.iter().copied()) {
                if value.is_nan() || time < self.from || time >= self.to {
                    continue;
                }
                let value = match metric {
                    STATUS => f64::from(u8::from(value == 0.0)),
                    _ => value,
                };
                let start = self.start(time);
                let bucket = Bucket { start, count: 1.0, sum: value, min: value, max: value };
                self.put((owner, metric), bucket);
            }
        }
    }

    /// Cores used since the sample before, or the ratio of the machine's. What was started again
    /// counts from 0, so that no rate can be told.
    fn rates(&mut self, block: &Block, column: &Column, order: &[usize]) -> Vec<f64> {
        let owner = column.key.owner;
        let other = if owner == HOST { CPU_ALL } else { RESTARTS };
        let others = block.column(Key::value(owner, other));
        let mut rates = vec![f64::NAN; column.values.len()];
        let mut before = self.before.remove(&owner);
        for row in order.iter().copied() {
            let (time, counter) = (block.times[row], column.values[row]);
            let other = others.map_or(f64::NAN, |values| values[row]);
            if counter.is_nan() || other.is_nan() {
                before = None;
                continue;
            }
            let now = Before { time, counter, other };
            if let Some(before) = before {
                rates[row] = rate(owner == HOST, before, now);
            }
            before = Some(now);
        }
        if let Some(before) = before {
            self.before.insert(owner, before);
        }
        rates
    }

    /// Minutes or hours.
    pub(super) fn add_steps(&mut self, block: &Block, wanted: impl Fn(i64) -> bool) {
        let samples = block.column(Key::SAMPLES);
        let of_row = |row: usize| samples.map_or(1.0, |values| values[row]);
        for (row, time) in block.times.iter().copied().enumerate() {
            if time >= self.from && time < self.to {
                *self.samples.entry(self.start(time)).or_default() += of_row(row);
            }
        }
        for column in &block.columns {
            let key = column.key;
            if key.part != Part::Value || !wanted(key.metric) {
                continue;
            }
            let part = |part| block.column(key.part(part));
            let (means, mosts, counts) = (part(Part::Mean), part(Part::Most), part(Part::Count));
            let at = |values: Option<&[f64]>, row: usize, or: f64| {
                values.map(|values| values[row]).filter(|it| !it.is_nan()).unwrap_or(or)
            };
            for (row, (time, min)) in block.times.iter().zip(&column.values).enumerate() {
                if min.is_nan() || *time < self.from || *time >= self.to {
                    continue;
                }
                let max = at(mosts, row, *min);
                let mean = min + (max - min) * at(means, row, 0.0) / 1000.0;
                let count = at(counts, row, of_row(row)).max(1.0);
                let start = self.start(*time);
                let bucket = Bucket { start, count, sum: mean * count, min: *min, max };
                self.put((key.owner, key.metric), bucket);
            }
        }
    }

    fn put(&mut self, key: (i64, i64), new: Bucket) {
        let all = self.buckets.entry(key).or_default();
        // Mostly what comes is newer than what there is.
        let place = match all.last() {
            Some(last) if last.start < new.start => Err(all.len()),
            Some(last) if last.start == new.start => Ok(all.len() - 1),
            _ => all.binary_search_by_key(&new.start, |bucket| bucket.start),
        };
        match place {
            Err(_) if self.room == 0 => {}
            Err(place) => {
                self.room -= 1;
                all.insert(place, new);
            }
            Ok(place) => {
                let bucket = &mut all[place];
                bucket.count += new.count;
                bucket.sum += new.sum;
                bucket.min = bucket.min.min(new.min);
                bucket.max = bucket.max.max(new.max);
            }
        }
    }

    /// A block of the next tier.
    pub(super) fn into_block(self) -> Block {
        let mut times: Vec<i64> = self.samples.keys().copied().collect();
        times.sort_unstable();
        let rows: HashMap<i64, usize> =
            times.iter().enumerate().map(|(row, time)| (*time, row)).collect();
        let mut columns = Columns::new(times.len());
        for (row, time) in times.iter().enumerate() {
            columns.set(row, Key::SAMPLES, self.samples[time]);
        }
        for ((owner, metric), buckets) in self.buckets {
            let key = Key::value(owner, metric);
            let rounded = |value: f64| match metric {
                CPU => (value * PARTS).round() / PARTS,
                _ => value,
            };
            for bucket in buckets {
                let Some(row) = rows.get(&bucket.start).copied() else { continue };
                let (min, max) = (rounded(bucket.min), rounded(bucket.max));
                columns.set(row, key, min);
                if max > min {
                    let mean = (bucket.mean() - min) / (max - min) * 1000.0;
                    columns.set(row, key.part(Part::Mean), mean.clamp(0.0, 1000.0).round());
                    columns.set(row, key.part(Part::Most), max);
                }
                if bucket.count != self.samples[&bucket.start] {
                    columns.set(row, key.part(Part::Count), bucket.count);
                }
            }
        }
        Block { times, seqs: Vec::new(), columns: columns.finish() }
    }
}

/// The rows in the order in which they were measured, as far as can be told. Mostly that is the order
/// of their times. Where a clock was set back, times repeat while numbers rise; where a journal began
/// anew, numbers repeat while times rise: the order that goes back less often is the right one.
fn order(block: &Block) -> Vec<usize> {
    let mut rows: Vec<usize> = (0..block.times.len()).collect();
    let Block { times, seqs, .. } = block;
    let numbers_back = seqs.windows(2).filter(|pair| pair[1] < pair[0]).count();
    if numbers_back > 0 {
        let by_number = {
            let mut rows = rows.clone();
            rows.sort_by_key(|row| (seqs[*row], times[*row]));
            rows
        };
        let times_back = by_number.windows(2).filter(|pair| times[pair[1]] < times[pair[0]]);
        if times_back.count() <= numbers_back {
            rows = by_number;
        }
    }
    rows
}

fn rate(host: bool, before: Before, now: Before) -> f64 {
    let apart = now.time - before.time;
    let used = now.counter - before.counter;
    if !(1..=MAX_APART).contains(&apart) || used < 0.0 {
        return f64::NAN;
    }
    if host {
        let all = now.other - before.other;
        return if all > 0.0 { (used / all).min(1.0) } else { f64::NAN };
    }
    match before.other == now.other {
        true => used / 1000.0 / apart as f64,
        false => f64::NAN,
    }
}
