//! What is measured, by number. These numbers are written into blocks: only add.

use std::collections::HashMap;

/// The owner of what the machine measures; processes have the number of their instance.
pub(super) const HOST: i64 = 0;

/// CPU: a counter of microseconds as it was read, cores (of a process) or a ratio (of the
/// machine) by minute and hour.
pub(in crate::store) const CPU: i64 = 0;
/// Bytes; of the machine those in use.
pub(in crate::store) const MEMORY: i64 = 1;
pub(in crate::store) const RESTARTS: i64 = 2;
pub(in crate::store) const THREADS: i64 = 3;
pub(in crate::store) const FDS: i64 = 4;
/// Place in `Status::ALL` as it was read; 1 (online) or 0 by minute and hour.
pub(in crate::store) const STATUS: i64 = 5;
/// All that the machine's cores could have worked, as a counter in microseconds.
pub(in crate::store) const CPU_ALL: i64 = 6;
pub(in crate::store) const MEMORY_TOTAL: i64 = 7;
pub(in crate::store) const DISK: i64 = 8;
pub(in crate::store) const DISK_TOTAL: i64 = 9;
pub(in crate::store) const LOAD: i64 = 10;
/// Numbers from here on are those of the table `metrics`, so much higher.
const FURTHER: i64 = 64;

/// The number of a metric that has a row in the table `metrics`.
pub(super) fn further(id: i64) -> i64 {
    id.saturating_add(FURTHER)
}

/// Number, name and unit of what every process has.
const OF_PROCESS: [(i64, &str, &str); 6] = [
    (CPU, "cpu", "cores"),
    (MEMORY, "memory", "bytes"),
    (RESTARTS, "restarts", ""),
    (THREADS, "threads", ""),
    (FDS, "open_fds", ""),
    (STATUS, "up", ""),
];

const OF_HOST: [(i64, &str, &str); 6] = [
    (CPU, "cpu", "ratio"),
    (MEMORY, "memory", "bytes"),
    (MEMORY_TOTAL, "memory_total", "bytes"),
    (DISK, "disk", "bytes"),
    (DISK_TOTAL, "disk_total", "bytes"),
    (LOAD, "load", ""),
];

/// Names and units by number.
pub(super) type Names = HashMap<i64, (String, String)>;

/// Those of the machine, or of every process; `wanted` ones, or all when it is empty.
pub(super) fn names(
    host: bool,
    further_ones: Vec<(i64, String, String)>,
    wanted: &[String],
) -> Names {
    let known = if host { OF_HOST } else { OF_PROCESS };
    let known = known.into_iter().map(|(number, name, unit)| (number, (name.into(), unit.into())));
    let more = further_ones.into_iter().map(|(id, name, unit)| (further(id), (name, unit)));
    known.chain(more).filter(|(_, (name, _))| wanted.is_empty() || wanted.contains(name)).collect()
}

/// What a column has of a metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(super) enum Part {
    /// The value; by minute and hour the least one.
    #[default]
    Value = 0,
    /// By minute and hour: where the mean is between least and greatest, in thousandths.
    /// Missing where these are the same.
    Mean = 1,
    /// By minute and hour: the greatest. Missing where it is the least.
    Most = 2,
    /// By minute and hour: how many values. Missing where it is as many as the row has samples,
    /// which is the count of metric 0 of owner -1.
    Count = 3,
}

impl Part {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Value, Self::Mean, Self::Most, Self::Count].into_iter().find(|it| *it as u8 == byte)
    }
}

/// Whose column of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) owner: i64,
    pub(super) metric: i64,
    pub(super) part: Part,
}

impl Key {
    /// How many samples each minute or hour had.
    pub(super) const SAMPLES: Self = Self { owner: -1, metric: 0, part: Part::Count };

    pub(super) fn value(owner: i64, metric: i64) -> Self {
        Self { owner, metric, part: Part::Value }
    }

    pub(super) fn part(self, part: Part) -> Self {
        Self { part, ..self }
    }
}
