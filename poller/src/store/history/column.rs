//! One column of a block: the values of one metric at consecutive moments, NaN where there is
//! none. Values that are decimal fractions, mebibytes, pages or clock ticks, as nearly all are,
//! become the small integers that they were before somebody multiplied them, exactly; of these
//! the differences are kept. What is no such thing is kept as it is.

use crate::store::varint::{get, get_signed, put, put_signed};

/// Set in the first byte when values are missing.
const HOLES: u8 = 0x80;
/// The first byte of a column that is no multiple of anything known.
const AS_IT_IS: u8 = 0x7f;
/// Larger integers are not exact as a floating point number.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// How a number is made from an integer. The number of each is written into blocks: only add.
const SCALES: [fn(f64) -> f64; 11] = [
    |whole| whole,
    |whole| whole * 10_000.0,               // clock ticks, in microseconds
    |whole| whole * 4096.0,                 // pages
    |whole| whole / 100.0,                  // two decimals, as PM2 rounds
    |whole| whole * 0.001,                  // milliseconds
    |whole| (whole / 100.0) * 0.001,        // milliseconds with two decimals
    |whole| (whole / 100.0) * 1_048_576.0,  // MiB with two decimals
    |whole| (whole / 100.0) * 0.01,         // percent with two decimals
    |whole| (whole / 100.0) * (1.0 / 60.0), // a minute, with two decimals
    |whole| whole / 100_000.0,              // CPU by minute and hour
    |whole| whole / 10_000.0,
];
/// The order in which they are tried: the one that leaves the smallest integers first.
const ORDER: [u8; 11] = [1, 2, 0, 6, 3, 4, 5, 7, 8, 10, 9];

pub(super) fn encode(out: &mut Vec<u8>, values: &[f64]) {
    let whole = values.iter().all(|value| !value.is_nan());
    let present: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    let scaled = ORDER.into_iter().find_map(|scale| Some((scale, scaled(scale, &present)?)));
    let first = scaled.as_ref().map_or(AS_IT_IS, |(scale, _)| *scale);
    out.push(if whole { first } else { first | HOLES });
    if !whole {
        put_runs(out, values);
    }
    match scaled {
        Some((_, integers)) => {
            let mut before = 0;
            for integer in integers {
                put_signed(out, integer - before);
                before = integer;
            }
        }
        None => {
            let mut before = 0;
            for value in present {
                // The sign and exponent, which stay, come last and so cost nothing.
                put(out, (value.to_bits() ^ before).swap_bytes());
                before = value.to_bits();
            }
        }
    }
}

/// Lengths of the stretches with and without values, in turn, beginning with one with.
fn put_runs(out: &mut Vec<u8>, values: &[f64]) {
    let mut rest = values;
    let mut with = true;
    while !rest.is_empty() {
        let run = rest.iter().take_while(|value| value.is_nan() != with).count();
        put(out, run as u64);
        rest = &rest[run..];
        with = !with;
    }
}

fn scaled(scale: u8, values: &[f64]) -> Option<Vec<i64>> {
    let make = SCALES[usize::from(scale)];
    let unit = make(1.0);
    let mut integers = Vec::with_capacity(values.len());
    for value in values {
        let near = (value / unit).round();
        let integer = near as i64;
        // By its bits: -0.0 is no integer.
        if near.abs() >= EXACT || make(integer as f64).to_bits() != value.to_bits() {
            return None;
        }
        integers.push(integer);
    }
    Some(integers)
}

/// `rows` values; `None` when `data` is no column of so many.
pub(super) fn decode(mut data: &[u8], rows: usize) -> Option<Vec<f64>> {
    let from = &mut data;
    let (&first, rest) = from.split_first()?;
    *from = rest;
    let mut values = if first & HOLES == 0 { vec![0.0; rows] } else { get_runs(from, rows)? };
    let places = values.iter_mut().filter(|value| !value.is_nan());
    match first & !HOLES {
        AS_IT_IS => {
            let mut before = 0;
            for value in places {
                before ^= get(from)?.swap_bytes();
                *value = f64::from_bits(before);
            }
        }
        scale => {
            let make = SCALES.get(usize::from(scale))?;
            let mut before = 0i64;
            for value in places {
                before = before.checked_add(get_signed(from)?)?;
                *value = make(before as f64);
            }
        }
    }
    from.is_empty().then_some(values)
}

fn get_runs(from: &mut &[u8], rows: usize) -> Option<Vec<f64>> {
    let mut values = Vec::with_capacity(rows);
    let mut with = true;
    while values.len() < rows {
        let run = usize::try_from(get(from)?).ok()?;
        if run > rows - values.len() {
            return None;
        }
        values.resize(values.len() + run, if with { 0.0 } else { f64::NAN });
        with = !with;
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn coded(values: &[f64]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out, values);
        out
    }

    fn same(a: &[f64], b: &[f64]) -> bool {
        let bits = |values: &[f64]| -> Vec<Option<u64>> {
            values.iter().map(|value| (!value.is_nan()).then(|| value.to_bits())).collect()
        };
        bits(a) == bits(b)
    }

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            Just(f64::NAN),
            any::<u32>().prop_map(f64::from),
            any::<i32>().prop_map(|whole| f64::from(whole) / 100.0 * 0.001),
            any::<i64>().prop_map(|whole| whole as f64),
            -1e300..1e300,
            Just(-0.0),
        ]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_to_the_last_bit(values in vec(value(), 0..50)) {
            let data = coded(&values);
            let read = decode(&data, values.len()).unwrap();
            prop_assert!(same(&values, &read), "{values:?} {read:?}");
        }

        #[test]
        fn nothing_panics(data: Vec<u8>, rows in 0..1000usize) {
            let _ = decode(&data, rows);
        }
    }

    #[test]
    fn what_programs_report_is_small() {
        let ticks: Vec<f64> = (0..100).map(|n| 3_600_000_000.0 + f64::from(n) * 50_000.0).collect();
        assert!(coded(&ticks).len() < 110);
        let mebibytes: Vec<f64> =
            (0..100).map(|n| (f64::from(4000 + n) / 100.0) * 1_048_576.0).collect();
        assert!(coded(&mebibytes).len() < 110);
        let latency: Vec<f64> = (0..100).map(|n| (f64::from(40 + n % 7) / 100.0) * 0.001).collect();
        assert!(coded(&latency).len() < 110);
    }
}
