//! How far back a page's charts go.

use std::str::FromStr;

use wire::InvalidId;

use crate::links::query;

/// A stretch of time up to now, by the word that stands in the address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Range {
    /// An hour.
    #[default]
    Hour,
    /// A day.
    Day,
    /// A week.
    Week,
    /// Thirty days.
    Month,
    /// 365 days.
    Year,
}

impl Range {
    /// All of them, shortest first.
    pub const ALL: [Self; 5] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// The word in addresses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::Day => "24h",
            Self::Week => "7d",
            Self::Month => "30d",
            Self::Year => "1y",
        }
    }

    /// In milliseconds.
    pub fn millis(self) -> i64 {
        const HOUR: i64 = 3_600_000;
        match self {
            Self::Hour => HOUR,
            Self::Day => 24 * HOUR,
            Self::Week => 7 * 24 * HOUR,
            Self::Month => 30 * 24 * HOUR,
            Self::Year => 365 * 24 * HOUR,
        }
    }

    /// The same as a field of an address, which need not say the usual one.
    pub(crate) fn field(self) -> (&'static str, &'static str) {
        ("range", if self == Self::default() { "" } else { self.as_str() })
    }

    /// The same as a duration that the API takes.
    pub(crate) fn back(self) -> &'static str {
        match self {
            Self::Year => "365d",
            other => other.as_str(),
        }
    }

    /// What people read.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Hour => "1 hour",
            Self::Day => "24 hours",
            Self::Week => "7 days",
            Self::Month => "30 days",
            Self::Year => "1 year",
        }
    }
}

impl FromStr for Range {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::ALL.into_iter().find(|range| range.as_str() == text).ok_or_else(|| InvalidId {
            what: "range",
            value: text.chars().take(100).collect(),
            allowed: "1h, 24h, 7d, 30d or 1y",
        })
    }
}

/// One range of the choice on a page.
pub(crate) struct RangeLink {
    pub(crate) href: String,
    pub(crate) words: &'static str,
    pub(crate) here: bool,
}

impl RangeLink {
    /// Every range, as links to `path` with `more` in the address.
    pub(crate) fn all(path: &str, more: &[(&str, &str)], chosen: Range) -> Vec<Self> {
        Range::ALL
            .into_iter()
            .map(|range| Self {
                href: query(path, &[more, &[range.field()]].concat()),
                words: range.words(),
                here: range == chosen,
            })
            .collect()
    }
}
