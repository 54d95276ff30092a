//! What was taken in lately, in the order in which it came: rows of about a page, each with the
//! records of many servers, so that a commit touches one page and not one a server. After a
//! while they are folded into blocks (`history/fold.rs`) and go.
//!
//! A record is also how far the server's journal is taken in: cursor and samples are one thing
//! and cannot come apart. Layout, integers as LEB128: server, number of the epoch, cursor, when
//! the server answered (0: it did not), count of samples; for each its number in the journal,
//! its time, its length and [`Sample`].

use super::sample::Sample;
use super::varint::{get, put, take};

/// A row as long as this fits a page of 4,096 bytes without another that is mostly empty.
pub(super) const ROW: usize = 4_000;

/// What one answer of a server left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) server: i64,
    pub(super) epoch: u64,
    pub(super) after: u64,
    /// Milliseconds since 1970; 0 when there was no answer.
    pub(super) answered: u64,
    pub(super) samples: usize,
    body: &'a [u8],
}

/// A sample with its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Placed {
    pub(super) time: i64,
    pub(super) seq: u64,
    pub(super) sample: Sample,
}

/// Puts the head of a record; [`put_sample`] must follow as often as it says.
pub(super) fn put_record(
    out: &mut Vec<u8>,
    server: i64,
    (epoch, after): (u64, u64),
    answered: u64,
    samples: usize,
) {
    for value in [server.unsigned_abs(), epoch, after, answered, samples as u64] {
        put(out, value);
    }
}

pub(super) fn put_sample(out: &mut Vec<u8>, seq: u64, time: i64, sample: &Sample) {
    let data = sample.encode();
    put(out, seq);
    put(out, time.unsigned_abs());
    put(out, data.len() as u64);
    out.extend(data);
}

/// The records of a row, in order. Ends early where the row cannot be read.
pub(super) fn records(mut row: &[u8]) -> impl Iterator<Item = Record<'_>> {
    std::iter::from_fn(move || next(&mut row))
}

fn next<'a>(row: &mut &'a [u8]) -> Option<Record<'a>> {
    if row.is_empty() {
        return None;
    }
    let server = i64::try_from(get(row)?).ok()?;
    let (epoch, after, answered) = (get(row)?, get(row)?, get(row)?);
    let samples = usize::try_from(get(row)?).ok()?;
    let whole = *row;
    for _ in 0..samples {
        get(row)?;
        get(row)?;
        let length = usize::try_from(get(row)?).ok()?;
        take(row, length)?;
    }
    let body = &whole[..whole.len() - row.len()];
    Some(Record { server, epoch, after, answered, samples, body })
}

impl Record<'_> {
    /// Its samples; those that cannot be read are left out.
    pub(super) fn read(&self) -> Vec<Placed> {
        let mut body = self.body;
        let mut all = Vec::with_capacity(self.samples);
        while !body.is_empty() {
            let Some((seq, time, data)) = part(&mut body) else { break };
            if let Some(sample) = Sample::decode(data) {
                all.push(Placed { time, seq, sample });
            }
        }
        all
    }
}

fn part<'a>(body: &mut &'a [u8]) -> Option<(u64, i64, &'a [u8])> {
    let seq = get(body)?;
    let time = i64::try_from(get(body)?).ok()?;
    let length = usize::try_from(get(body)?).ok()?;
    Some((seq, time, take(body, length)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn records_come_back_in_order() {
        let sample = Sample { host: vec![(1, 0.5)], ..Sample::default() };
        let mut row = Vec::new();
        put_record(&mut row, 7, (1, 20), 1_000, 2);
        put_sample(&mut row, 19, 500, &sample);
        put_sample(&mut row, 20, 600, &Sample::default());
        put_record(&mut row, 8, (2, 3), 0, 0);
        let read: Vec<Record<'_>> = records(&row).collect();
        assert_eq!(
            (read[0].server, read[0].epoch, read[0].after, read[0].answered),
            (7, 1, 20, 1000)
        );
        let samples = read[0].read();
        assert_eq!((samples[0].seq, samples[0].time, &samples[0].sample), (19, 500, &sample));
        assert_eq!(samples.len(), 2);
        assert_eq!((read.len(), read[1].server, read[1].samples), (2, 8, 0));
    }

    proptest! {
        #[test]
        fn nothing_panics(row: Vec<u8>) {
            for record in records(&row) {
                record.read();
            }
        }
    }
}
