//! Numbers that look random and are a function of what they are asked for.

/// Evenly spread over all of `u64` (splitmix64's finish).
pub(super) fn mixed(seed: u64, number: u64) -> u64 {
    let mut mixed = seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// From 0 up to 1.
pub(super) fn part(seed: u64, number: u64) -> f64 {
    (mixed(seed, number) >> 11) as f64 / (1u64 << 53) as f64
}

/// Between two whole numbers, both included.
pub(super) fn between(seed: u64, number: u64, least: u64, most: u64) -> u64 {
    least + mixed(seed, number) % (most - least + 1)
}

/// A pause of this length on average, as between things that happen by chance.
pub(super) fn pause(seed: u64, number: u64, mean_millis: u64) -> i64 {
    let part = part(seed, number).max(1e-9);
    (-part.ln() * mean_millis as f64).min(100.0 * mean_millis as f64) as i64 + 1
}
