//! A block: what one server's processes and its machine measured within a stretch of time, by
//! columns. In the database it is one byte of version, the length that follows when unpacked,
//! and zstd of: count of rows; times and numbers as second differences; count of columns; of
//! each its owner, metric, part and length; then the columns ([`super::column`]).
//!
//! One blob a server and not one a series: SQLite fills its pages with few large rows, and the
//! columns of one process are found without reading the others.

use std::collections::HashMap;

use super::column;
use super::metric::{self, HOST, Key, Part};
use crate::store::recent::Placed;
use crate::store::varint::{get, get_count, get_signed, put, put_signed, take};

const VERSION: u8 = 1;
/// zstd's level: 9 takes half as long again and saves a twentieth.
const LEVEL: i32 = 3;
/// Most bytes of a block when unpacked.
const MOST: usize = 64 << 20;
/// Most values of a block; a server with 60 processes has a thirtieth of it in an hour.
pub(super) const MOST_VALUES: usize = 8 << 20;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Block {
    /// Milliseconds since 1970, rising.
    pub(super) times: Vec<i64>,
    /// Numbers in the server's journal, which keep two apart when its clock is set back. None
    /// in the tiers by minute and hour.
    pub(super) seqs: Vec<u64>,
    /// By key; each has a value or NaN a row.
    pub(super) columns: Vec<Column>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Column {
    pub(super) key: Key,
    pub(super) values: Vec<f64>,
}

impl Block {
    /// Samples of one server, put into order; those that are there twice count once.
    pub(super) fn from_samples(mut placed: Vec<Placed>) -> Self {
        placed.sort_by_key(|it| (it.time, it.seq));
        placed.dedup_by_key(|it| (it.time, it.seq));
        let mut columns = Columns::new(placed.len());
        for (row, it) in placed.iter().enumerate() {
            for (metric, value) in &it.sample.host {
                columns.set(row, Key::value(HOST, *metric), *value);
            }
            for process in &it.sample.processes {
                let mut set = |metric, value: f64| {
                    columns.set(row, Key::value(process.instance, metric), value);
                };
                let number = |value: Option<u64>| value.map(|value| value as f64);
                set(metric::STATUS, f64::from(process.status));
                set(metric::RESTARTS, process.restarts as f64);
                let read = [
                    (metric::CPU, number(process.cpu_micros)),
                    (metric::MEMORY, number(process.memory)),
                    (metric::THREADS, number(process.threads)),
                    (metric::FDS, number(process.fds)),
                ];
                for (metric, value) in read.into_iter().filter_map(|(it, value)| Some((it, value?)))
                {
                    set(metric, value);
                }
                for (id, value) in &process.metrics {
                    set(metric::further(*id), *value);
                }
            }
        }
        Self {
            times: placed.iter().map(|it| it.time).collect(),
            seqs: placed.iter().map(|it| it.seq).collect(),
            columns: columns.finish(),
        }
    }

    /// How many values are in it.
    pub(super) fn values(&self) -> usize {
        let there = |column: &Column| column.values.iter().filter(|it| !it.is_nan()).count();
        self.columns.iter().map(there).sum()
    }

    /// How many minutes or hours of a metric are in it.
    pub(super) fn steps(&self) -> usize {
        let values = self.columns.iter().filter(|column| column.key.part == Part::Value);
        values.map(|column| column.values.iter().filter(|it| !it.is_nan()).count()).sum()
    }

    /// The column of a key.
    pub(super) fn column(&self, key: Key) -> Option<&[f64]> {
        let place = self.columns.binary_search_by_key(&key, |column| column.key).ok()?;
        Some(&self.columns[place].values)
    }

    /// Both together; a row that is in both is taken from `self`.
    pub(super) fn merge(self, other: &Self) -> Self {
        if other.times.is_empty() {
            return self;
        }
        let place = |block: &Self, row: usize| {
            (block.times[row], block.seqs.get(row).copied().unwrap_or_default())
        };
        let mut rows: Vec<(i64, u64, bool, usize)> =
            Vec::with_capacity(self.times.len() + other.times.len());
        for (block, second) in [(&self, false), (other, true)] {
            for row in 0..block.times.len() {
                let (time, seq) = place(block, row);
                rows.push((time, seq, second, row));
            }
        }
        rows.sort_unstable();
        rows.dedup_by_key(|(time, seq, ..)| (*time, *seq));
        let mut keys: Vec<Key> =
            self.columns.iter().chain(&other.columns).map(|column| column.key).collect();
        keys.sort_unstable();
        keys.dedup();
        let columns = keys.into_iter().map(|key| {
            let sources = [self.column(key), other.column(key)];
            let value = |(_, _, second, row): &(i64, u64, bool, usize)| {
                sources[usize::from(*second)].map_or(f64::NAN, |values| values[*row])
            };
            Column { key, values: rows.iter().map(value).collect() }
        });
        Self {
            columns: columns.collect(),
            times: rows.iter().map(|row| row.0).collect(),
            seqs: match self.seqs.is_empty() && other.seqs.is_empty() {
                true => Vec::new(),
                false => rows.iter().map(|row| row.1).collect(),
            },
        }
    }

    /// Without the rows whose time is not `good`.
    pub(super) fn retain(&mut self, good: impl Fn(i64) -> bool) {
        let keep: Vec<bool> = self.times.iter().map(|time| good(*time)).collect();
        fn only<T>(values: &mut Vec<T>, keep: &[bool]) {
            let mut all = keep.iter();
            values.retain(|_| all.next().copied().unwrap_or_default());
        }
        only(&mut self.times, &keep);
        only(&mut self.seqs, &keep);
        for column in &mut self.columns {
            only(&mut column.values, &keep);
        }
    }

    pub(super) fn encode(&self) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        put(&mut out, self.times.len() as u64);
        put_times(&mut out, self.times.iter().copied());
        out.push(u8::from(!self.seqs.is_empty()));
        put_times(&mut out, self.seqs.iter().map(|seq| seq.cast_signed()));
        put(&mut out, self.columns.len() as u64);
        let mut data = Vec::new();
        let mut owner = 0;
        for column in &self.columns {
            let start = data.len();
            column::encode(&mut data, &column.values);
            put_signed(&mut out, column.key.owner - owner);
            put(&mut out, column.key.metric.unsigned_abs());
            out.push(column.key.part as u8);
            put(&mut out, (data.len() - start) as u64);
            owner = column.key.owner;
        }
        out.extend(data);
        let mut blob = vec![VERSION];
        put(&mut blob, out.len() as u64);
        blob.extend(zstd::bulk::compress(&out, LEVEL)?);
        Ok(blob)
    }

    /// The columns that are `wanted`; `None` when it is no block of a version known here.
    pub(super) fn decode(mut blob: &[u8], wanted: impl Fn(Key) -> bool) -> Option<Self> {
        let from = &mut blob;
        if take(from, 1)? != [VERSION] {
            return None;
        }
        let length = usize::try_from(get(from)?).ok().filter(|length| *length <= MOST)?;
        let data = zstd::bulk::decompress(from, length).ok()?;
        let from = &mut &data[..];
        let rows = get_count(from)?;
        let times = get_times(from, rows)?;
        let seqs = match take(from, 1)? {
            [0] => Vec::new(),
            _ => get_times(from, rows)?.into_iter().map(i64::cast_unsigned).collect(),
        };
        let count = get_count(from)?;
        let mut directory = Vec::with_capacity(count);
        let mut owner = 0i64;
        for _ in 0..count {
            owner = owner.checked_add(get_signed(from)?)?;
            let metric = i64::try_from(get(from)?).ok()?;
            let part = Part::from_byte(take(from, 1)?[0])?;
            directory.push((Key { owner, metric, part }, usize::try_from(get(from)?).ok()?));
        }
        let mut columns = Vec::new();
        for (key, length) in directory {
            let data = take(from, length)?;
            if wanted(key) {
                columns.push(Column { key, values: column::decode(data, rows)? });
            }
        }
        from.is_empty().then_some(Self { times, seqs, columns })
    }
}

/// Second differences, which are near 0 for what comes at an interval.
fn put_times(out: &mut Vec<u8>, times: impl Iterator<Item = i64>) {
    let (mut before, mut step) = (0i64, 0i64);
    for time in times {
        let next = time.wrapping_sub(before);
        put_signed(out, next.wrapping_sub(step));
        (before, step) = (time, next);
    }
}

fn get_times(from: &mut &[u8], rows: usize) -> Option<Vec<i64>> {
    let (mut before, mut step) = (0i64, 0i64);
    (0..rows)
        .map(|_| {
            step = step.wrapping_add(get_signed(from)?);
            before = before.wrapping_add(step);
            Some(before)
        })
        .collect()
}

/// Columns in the making. Rows mostly have the same keys in the same order, so that the next
/// column is looked for right after the one before.
pub(super) struct Columns {
    rows: usize,
    columns: Vec<Column>,
    places: HashMap<Key, usize>,
    next: usize,
}

impl Columns {
    pub(super) fn new(rows: usize) -> Self {
        Self { rows, columns: Vec::new(), places: HashMap::new(), next: 0 }
    }

    pub(super) fn set(&mut self, row: usize, key: Key, value: f64) {
        let place = match self.columns.get(self.next) {
            Some(column) if column.key == key => self.next,
            _ => *self.places.entry(key).or_insert_with(|| {
                self.columns.push(Column { key, values: vec![f64::NAN; self.rows] });
                self.columns.len() - 1
            }),
        };
        self.columns[place].values[row] = value;
        self.next = if place + 1 < self.columns.len() { place + 1 } else { 0 };
    }

    pub(super) fn finish(mut self) -> Vec<Column> {
        self.columns.sort_unstable_by_key(|column| column.key);
        self.columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn block() -> impl Strategy<Value = Block> {
        let rows = 0..20usize;
        rows.prop_flat_map(|rows| {
            let keys = proptest::collection::btree_set((0..5i64, 0..9i64), 0..6);
            let times = proptest::collection::btree_set(0..100_000i64, rows);
            (keys, times).prop_flat_map(|(keys, times)| {
                let times: Vec<i64> = times.into_iter().collect();
                vec(vec(-100.0..100.0f64, times.len()), keys.len()).prop_map(move |values| {
                    let columns = keys.iter().zip(values).map(|((owner, metric), values)| Column {
                        key: Key::value(*owner, *metric),
                        values,
                    });
                    Block {
                        times: times.clone(),
                        seqs: times.iter().map(|time| time.unsigned_abs() / 2).collect(),
                        columns: columns.collect(),
                    }
                })
            })
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(block in block()) {
            let blob = block.encode().unwrap();
            prop_assert_eq!(Block::decode(&blob, |_| true), Some(block.clone()));
            let one = Block::decode(&blob, |key| key.owner == 1).unwrap();
            prop_assert!(one.columns.iter().all(|column| column.key.owner == 1));
            prop_assert_eq!(Block::decode(&blob[..blob.len() - 1], |_| true), None);
        }

        #[test]
        fn merged_in_any_order_and_twice_is_the_same(block in block(), split in 0..20usize) {
            let (mut a, mut b) = (block.clone(), block.clone());
            let at = block.times.get(split).copied().unwrap_or(i64::MAX);
            a.retain(|time| time < at);
            b.retain(|time| time >= at);
            prop_assert_eq!(&a.clone().merge(&b), &block);
            prop_assert_eq!(&b.clone().merge(&a), &block);
            prop_assert_eq!(block.clone().merge(&a), block);
        }

        #[test]
        fn nothing_panics(blob: Vec<u8>, unpacked: Vec<u8>) {
            let _ = Block::decode(&blob, |_| true);
            let mut good = vec![VERSION];
            put(&mut good, unpacked.len() as u64);
            good.extend(zstd::bulk::compress(&unpacked, 1).unwrap());
            let _ = Block::decode(&good, |_| true);
        }
    }
}
