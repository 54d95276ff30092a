//! Integers as LEB128: seven bits a byte, the low ones first. Small ones, and there is hardly
//! any other here, take one byte.

pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Signed ones: near to 0 on either side is small.
pub(super) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

pub(super) fn take<'a>(from: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(count)?;
    *from = rest;
    Some(taken)
}

/// `None` when it is torn or more than 64 bits.
pub(super) fn get(from: &mut &[u8]) -> Option<u64> {
    // Nearly all are one byte.
    if let [byte @ 0..0x80, rest @ ..] = *from {
        *from = rest;
        return Some(u64::from(*byte));
    }
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(from, 1)?[0];
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

pub(super) fn get_signed(from: &mut &[u8]) -> Option<i64> {
    let value = get(from)?;
    Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
}

/// A count that is not larger than what is left could hold, at least a byte each.
pub(super) fn get_count(from: &mut &[u8]) -> Option<usize> {
    let count = usize::try_from(get(from)?).ok()?;
    (count <= from.len()).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_put_is_got(unsigned: u64, signed: i64) {
            let mut out = Vec::new();
            put(&mut out, unsigned);
            put_signed(&mut out, signed);
            let from = &mut &out[..];
            prop_assert_eq!((get(from), get_signed(from)), (Some(unsigned), Some(signed)));
            prop_assert!(from.is_empty());
        }
    }
}
