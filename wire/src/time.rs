use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A moment, in whole milliseconds since the Unix epoch; written as RFC 3339 in UTC
/// (`2026-01-31T12:00:00.250Z`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

/// A text or number that is not a moment that this program can express.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a time: RFC 3339 expected, such as 2026-01-31T12:00:00Z")]
pub struct InvalidTime(String);

impl Time {
    /// The system clock now.
    pub fn now() -> Self {
        Self(Timestamp::now().as_millisecond())
    }

    /// From milliseconds since the Unix epoch, clamped to what RFC 3339 can write
    /// (years 1 to 9999).
    pub fn from_millis(millis: i64) -> Self {
        const YEAR_1: i64 = -62_135_596_800_000;
        const YEAR_9999: i64 = 253_402_207_200_000;
        Self(millis.clamp(YEAR_1, YEAR_9999))
    }

    /// Milliseconds since the Unix epoch.
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// Seconds since the Unix epoch, as Prometheus counts them.
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// Milliseconds from `earlier` to this; negative when `earlier` is later.
    pub fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This moment moved by `millis` (negative: back).
    pub fn plus_millis(self, millis: i64) -> Self {
        Self::from_millis(self.0.saturating_add(millis))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_millisecond(self.0) {
            Ok(timestamp) => write!(f, "{timestamp:.3}"),
            Err(_) => f.write_str("0001-01-01T00:00:00.000Z"),
        }
    }
}

impl FromStr for Time {
    type Err = InvalidTime;

    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        text.parse::<Timestamp>()
            .map(|timestamp| Self::from_millis(timestamp.as_millisecond()))
            .map_err(|_| InvalidTime(text.chars().take(64).collect()))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Time;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an RFC 3339 time")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Time, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn is_written_with_milliseconds_in_utc() {
        assert_eq!(Time::from_millis(1_700_000_000_250).to_string(), "2023-11-14T22:13:20.250Z");
        assert_eq!(Time::from_millis(0).to_string(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn reads_offsets_and_refuses_the_rest() {
        let time: Time = "2023-11-14T23:13:20.25+01:00".parse().unwrap();
        assert_eq!(time.as_millis(), 1_700_000_000_250);
        for wrong in ["", "now", "1700000000", "2023-11-14", "2023-13-01T00:00:00Z"] {
            let error = wrong.parse::<Time>().unwrap_err().to_string();
            assert!(error.contains("RFC 3339"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_number_of_milliseconds_survives_the_text(millis: i64) {
            let time = Time::from_millis(millis);
            prop_assert_eq!(time.to_string().parse::<Time>().unwrap(), time);
        }
    }
}
