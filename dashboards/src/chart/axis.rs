//! Where the lines of the grid stand, and what is written at them.

use wire::Time;

use super::Unit;
use crate::format::{self, Binary};

impl Unit {
    /// Size and name of what one is counted in on an axis that goes up to `top`.
    fn axis(self, top: f64) -> (f64, &'static str) {
        match self {
            Self::Cores | Self::Share => (0.01, " %"),
            Self::Bytes => {
                let unit = Binary::of(top);
                let names = [" B", " KiB", " MiB", " GiB", " TiB", " PiB"];
                let name = names.into_iter().find(|name| name.ends_with(unit.name()));
                (unit.size(), if unit.size() == 1.0 { " B" } else { name.unwrap_or(" B") })
            }
            Self::Seconds if top < 1.0 => (0.001, " ms"),
            Self::Seconds => (1.0, " s"),
            Self::Rate => (1.0, " /s"),
            Self::Count => (1.0, ""),
        }
    }
}

/// Round values from 0 up to the first one not below `greatest`, three to six of them.
/// From 0, or `lowest` where that is below.
pub(super) fn value_ticks(unit: Unit, lowest: f64, greatest: f64) -> Vec<(f64, String)> {
    // Below these a chart would make a mountain of nothing.
    let least = match unit {
        Unit::Cores | Unit::Share => 0.05,
        Unit::Bytes => 1024.0 * 1024.0,
        Unit::Seconds => 0.005,
        Unit::Rate | Unit::Count => 4.0,
    };
    let (lowest, greatest) = (lowest.min(0.0), greatest.max(0.0));
    let span = (greatest - lowest).max(least);
    let (size, name) = unit.axis(span);
    let rough = span / size / 4.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|nice| nice * power)
        .find(|step| *step >= rough * 0.999_999)
        .unwrap_or(10.0 * power);
    let steps = |value: f64| (value / size / step - 1e-9).ceil() as i32;
    let below = steps(-lowest).clamp(0, 6);
    let above = steps(if below == 0 { span } else { greatest }).clamp(i32::from(below == 0), 6);
    (-below..=above)
        .map(|index| {
            let value = f64::from(index) * step;
            let text = match index {
                0 => "0".to_owned(),
                _ => format!("{}{name}", format::number(value)),
            };
            (value * size, text)
        })
        .collect()
}

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Round moments between two others, at most eight of them.
pub(super) fn time_ticks(from: Time, to: Time) -> Vec<(Time, String)> {
    let span = to.millis_since(from);
    let steps = [
        MINUTE,
        2 * MINUTE,
        5 * MINUTE,
        10 * MINUTE,
        15 * MINUTE,
        30 * MINUTE,
        HOUR,
        2 * HOUR,
        4 * HOUR,
        6 * HOUR,
        12 * HOUR,
        DAY,
        2 * DAY,
        5 * DAY,
        10 * DAY,
        30 * DAY,
        60 * DAY,
        90 * DAY,
    ];
    let step = steps.into_iter().find(|step| span / step <= 7).unwrap_or((span / 6).max(DAY));
    let first = from.as_millis().div_euclid(step).saturating_add(1).saturating_mul(step);
    (0..8)
        .map(|index| Time::from_millis(first.saturating_add(index * step)))
        .take_while(|time| *time <= to)
        // A text at the very edge would be cut.
        .filter(|time| time.millis_since(from) > span / 20 && to.millis_since(*time) > span / 30)
        .map(|time| (time, moment(time, step)))
        .collect()
}

fn moment(time: Time, step: i64) -> String {
    if step >= DAY || (step > HOUR && time.as_millis().rem_euclid(DAY) == 0) {
        return day(time);
    }
    hour(time)
}

fn hour(time: Time) -> String {
    format::machine_time(time).get(11..16).unwrap_or_default().to_owned()
}

fn day(time: Time) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = format::machine_time(time);
    let number = |range| text.get(range).and_then(|digits: &str| digits.parse::<usize>().ok());
    let month = number(5..7).and_then(|month| MONTHS.get(month.wrapping_sub(1))).unwrap_or(&"");
    format!("{} {month}", number(8..10).unwrap_or(0))
}

pub(super) fn span_in_words(from: Time, to: Time) -> String {
    if to.millis_since(from) < DAY {
        return format!("{} to {} UTC", hour(from), hour(to));
    }
    format!("{} to {}", day(from), day(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_700_000_000_000 - 1_700_000_000_000 % HOUR;

    fn texts(ticks: &[(f64, String)]) -> Vec<&str> {
        ticks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn axes_have_round_numbers() {
        assert_eq!(texts(&value_ticks(Unit::Cores, 0.0, 0.0)), ["0", "2 %", "4 %", "6 %"]);
        assert_eq!(
            texts(&value_ticks(Unit::Cores, 0.0, 1.0)),
            ["0", "25 %", "50 %", "75 %", "100 %"]
        );
        assert_eq!(
            texts(&value_ticks(Unit::Bytes, 0.0, 57.6 * 1024.0 * 1024.0)),
            ["0", "20 MiB", "40 MiB", "60 MiB"]
        );
        assert_eq!(
            texts(&value_ticks(Unit::Bytes, 0.0, 1.2 * 1024.0 * 1024.0 * 1024.0)),
            ["0", "0.5 GiB", "1 GiB", "1.5 GiB"]
        );
        assert_eq!(texts(&value_ticks(Unit::Seconds, 0.0, 0.012)), ["0", "5 ms", "10 ms", "15 ms"]);
        for exponent in -3..18 {
            let ticks = value_ticks(Unit::Count, 0.0, 7.3 * 10_f64.powi(exponent));
            assert!((3..=7).contains(&ticks.len()), "{ticks:?}");
        }
    }

    #[test]
    fn times_are_round_and_few() {
        let texts = |millis: i64| -> Vec<String> {
            let from = Time::from_millis(START + 100_000);
            let ticks = time_ticks(from, from.plus_millis(millis));
            ticks.into_iter().map(|(_, text)| text).collect()
        };
        assert_eq!(texts(HOUR), ["22:10", "22:20", "22:30", "22:40", "22:50"]);
        assert_eq!(texts(DAY), ["15 Nov", "04:00", "08:00", "12:00", "16:00", "20:00"]);
        assert_eq!(texts(7 * DAY), ["16 Nov", "17 Nov", "18 Nov", "19 Nov", "20 Nov", "21 Nov"]);
        for days in [1, 7, 30, 400, 100_000] {
            assert!((2..=8).contains(&texts(days * DAY).len()), "{:?}", texts(days * DAY));
        }
    }
}
