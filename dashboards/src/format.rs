//! Numbers and times as people read them. One way of writing each, for all pages.

use wire::Time;

/// What stands where nothing was read.
pub const NOTHING: &str = "–";

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Bytes in binary units: `512 B`, `37.4 MiB`, `312 MiB`, `1.5 GiB`.
pub fn bytes(bytes: u64) -> String {
    let unit = Binary::of(bytes as f64);
    format!("{} {}", unit.number(bytes as f64), unit.name())
}

/// A part of a whole in one unit, where the part is no smaller than a tenth of it:
/// `3.1 of 7.8 GiB`, `120 MiB of 7.8 GiB`.
pub fn bytes_of(part: u64, whole: u64) -> String {
    let unit = Binary::of(whole as f64);
    if part as f64 >= unit.size() / 10.0 {
        return format!("{} of {}", unit.number(part as f64), bytes(whole));
    }
    format!("{} of {}", bytes(part), bytes(whole))
}

/// A binary unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Binary(i32);

impl Binary {
    const NAMES: [&'static str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

    /// The unit in which `bytes` is at least 1 and, as written, less than 1024.
    pub(crate) fn of(bytes: f64) -> Self {
        let mut unit = Self(0);
        while bytes / unit.size() >= 1023.5 && unit.0 < 5 {
            unit.0 += 1;
        }
        unit
    }

    pub(crate) fn size(self) -> f64 {
        1024_f64.powi(self.0)
    }

    pub(crate) fn name(self) -> &'static str {
        Self::NAMES.get(usize::try_from(self.0).unwrap_or(0)).copied().unwrap_or("B")
    }

    /// `bytes` in this unit: one decimal below 100, where there is something to tell.
    pub(crate) fn number(self, bytes: f64) -> String {
        let value = bytes / self.size();
        if self.0 == 0 || value >= 99.95 { format!("{value:.0}") } else { short(value) }
    }
}

/// One decimal, and none when it would be 0.
fn short(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// A share as percent: `0 %`, `0.4 %`, `12 %`, `134 %`. One decimal below 10.
pub fn percent(share: f64) -> String {
    let value = share * 100.0;
    if !value.is_finite() {
        return NOTHING.to_owned();
    }
    if value >= 9.95 { format!("{value:.0} %") } else { format!("{} %", short(value.max(0.0))) }
}

/// A count with its thousands apart: `1,234,567`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with its noun: `1 server`, `2 servers`, `2 processes`.
pub fn counted(value: u64, one: &str) -> String {
    let ending = match value {
        1 => "",
        _ if one.ends_with('s') || one.ends_with("sh") => "es",
        _ => "s",
    };
    format!("{} {one}{ending}", count(value))
}

/// A number of no particular kind: two decimals at most, and of small ones two digits: `0.42`, `12`,
/// `1.5`, `0.0042`.
pub fn number(value: f64) -> String {
    // More than nine decimals are nothing.
    let decimals = match value.abs() {
        small if (5e-10..0.1).contains(&small) => 1 - small.log10().floor() as i32,
        _ => 2,
    };
    let decimals = usize::try_from(decimals.min(9)).unwrap_or(2);
    let text = format!("{value:.decimals$}");
    match text.trim_end_matches('0').trim_end_matches('.') {
        "-0" => "0".to_owned(),
        text => text.to_owned(),
    }
}

/// How long something runs, in the two greatest units: `12 s`, `4 min 5 s`, `3 h 12 min`,
/// `2 d 4 h`.
pub fn uptime(millis: i64) -> String {
    let millis = millis.max(0);
    let (great, great_name, small, small_name) = match millis {
        0..MINUTE => return format!("{} s", millis / SECOND),
        MINUTE..HOUR => (MINUTE, "min", SECOND, "s"),
        HOUR..DAY => (HOUR, "h", MINUTE, "min"),
        _ => (DAY, "d", HOUR, "h"),
    };
    match millis % great / small {
        0 => format!("{} {great_name}", count_i64(millis / great)),
        rest => format!("{} {great_name} {rest} {small_name}", count_i64(millis / great)),
    }
}

fn count_i64(value: i64) -> String {
    count(u64::try_from(value).unwrap_or(0))
}

/// How long something took: `340 ms`, `1.2 s`, `45 s`, `2 min 3 s`.
pub fn duration(millis: i64) -> String {
    match millis.max(0) {
        millis @ 0..SECOND => format!("{millis} ms"),
        millis @ SECOND..MINUTE => {
            let seconds = millis as f64 / 1000.0;
            if seconds < 9.95 { format!("{} s", short(seconds)) } else { format!("{seconds:.0} s") }
        }
        millis => uptime(millis),
    }
}

/// How long ago, in one unit: `just now`, `4 s ago`, `3 min ago`, `2 h ago`, `5 d ago`. What
/// is not yet past is `just now`: clocks differ a little.
pub fn age(now: Time, then: Time) -> String {
    match now.millis_since(then) {
        ..SECOND => "just now".to_owned(),
        millis => format!("{} ago", span(millis)),
    }
}

/// A time span in one unit, rounded down: `4 s`, `3 min`, `2 h`, `5 d`.
pub fn span(millis: i64) -> String {
    match millis.max(0) {
        millis @ 0..MINUTE => format!("{} s", millis / SECOND),
        millis @ MINUTE..HOUR => format!("{} min", millis / MINUTE),
        millis @ HOUR..DAY => format!("{} h", millis / HOUR),
        millis => format!("{} d", count_i64(millis / DAY)),
    }
}

/// A moment for machines, to the second: `2026-01-31T12:00:00Z`.
pub fn machine_time(time: Time) -> String {
    let text = time.to_string();
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

/// A moment for people, in UTC: `2026-01-31 12:00:00`.
pub fn clock(time: Time) -> String {
    machine_time(time).replace('T', " ").replace('Z', "")
}

/// `text` cut to at most `max` characters, with `…` for what was cut.
pub fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_figures_at_most() {
        for (value, text) in [
            (0, "0 B"),
            (1, "1 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (39_216_742, "37.4 MiB"),
            (104_857_600, "100 MiB"),
            (1_073_741_823, "1 GiB"),
            (1_610_612_736, "1.5 GiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(bytes(value), text, "{value}");
        }
    }

    #[test]
    fn a_part_shares_the_unit_of_the_whole_unless_it_is_tiny() {
        let gib = 1_u64 << 30;
        assert_eq!(bytes_of(3 * gib + gib / 10, 8 * gib), "3.1 of 8 GiB");
        assert_eq!(bytes_of(20 << 20, 8 * gib), "20 MiB of 8 GiB");
        assert_eq!(bytes_of(0, 0), "0 B of 0 B");
    }

    #[test]
    fn percents_tell_small_from_none() {
        for (share, text) in [
            (0.0, "0 %"),
            (0.004, "0.4 %"),
            (0.0994, "9.9 %"),
            (0.0996, "10 %"),
            (0.12, "12 %"),
            (1.337, "134 %"),
            (-0.1, "0 %"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(percent(share), text, "{share}");
        }
    }

    #[test]
    fn counts() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1000), "1,000");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "server"), "1 server");
        assert_eq!(counted(0, "server"), "0 servers");
        assert_eq!(counted(2, "process"), "2 processes");
        assert_eq!(counted(4, "crash"), "4 crashes");
        assert_eq!(number(0.4211), "0.42");
        assert_eq!(number(12.0), "12");
        assert_eq!(number(1.5), "1.5");
        assert_eq!(
            (number(0.0), number(-0.0), number(1e-12)),
            ("0".into(), "0".into(), "0".into())
        );
        assert_eq!((number(0.00421), number(-0.001)), ("0.0042".into(), "-0.001".into()));
        assert_eq!(
            (number(0.1), number(0.05), number(-35.0)),
            ("0.1".into(), "0.05".into(), "-35".into())
        );
    }

    #[test]
    fn times_in_the_units_that_matter() {
        for (millis, long, short, took) in [
            (-5, "0 s", "0 s", "0 ms"),
            (340, "0 s", "0 s", "340 ms"),
            (1_249, "1 s", "1 s", "1.2 s"),
            (59_999, "59 s", "59 s", "60 s"),
            (60_000, "1 min", "1 min", "1 min"),
            (245_000, "4 min 5 s", "4 min", "4 min 5 s"),
            (11_520_000, "3 h 12 min", "3 h", "3 h 12 min"),
            (187_200_000, "2 d 4 h", "2 d", "2 d 4 h"),
            (86_400_000_000, "1,000 d", "1,000 d", "1,000 d"),
        ] {
            assert_eq!(uptime(millis), long, "{millis}");
            assert_eq!(span(millis), short, "{millis}");
            assert_eq!(duration(millis), took, "{millis}");
        }
    }

    #[test]
    fn ages_never_lie_in_the_future() {
        let now = Time::from_millis(1_700_000_000_250);
        assert_eq!(age(now, now.plus_millis(-4_100)), "4 s ago");
        assert_eq!(age(now, now.plus_millis(-999)), "just now");
        assert_eq!(age(now, now.plus_millis(60_000)), "just now");
    }

    #[test]
    fn moments() {
        let time = Time::from_millis(1_700_000_000_250);
        assert_eq!(machine_time(time), "2023-11-14T22:13:20Z");
        assert_eq!(clock(time), "2023-11-14 22:13:20");
    }

    #[test]
    fn text_is_cut_at_characters() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüx", 3), "äöü…");
        assert_eq!(cut("ab cd", 3), "ab…");
    }
}
