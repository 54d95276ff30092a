//! How long things are kept, how large the database may get, and where copies of it go.

use std::path::PathBuf;
use std::time::Duration;

use service::config::Reader;
use service::quantity;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// A smaller database would drop history before it is an hour old.
const SMALLEST: u64 = 4 << 20;
const MOST_COPIES: u32 = 1000;

/// How long things are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Samples as they came.
    pub raw: Duration,
    /// Minutes.
    pub minutes: Duration,
    /// Hours.
    pub hours: Duration,
    /// Events.
    pub events: Duration,
    /// Commands.
    pub commands: Duration,
    /// Audit.
    pub audit: Duration,
    /// Most bytes of the database; beyond that the oldest history goes.
    pub max_size: Option<u64>,
}

/// Copies of the database, made by schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Where they go; made when it is not there.
    pub dir: PathBuf,
    /// From one to the next.
    pub every: Duration,
    /// How many stay.
    pub keep: u32,
}

pub(super) fn keep(reader: &mut Reader) -> Keep {
    let keep = Keep {
        raw: reader.duration("keep_raw", 48 * HOUR, HOUR..=400 * DAY),
        minutes: reader.duration("keep_minutes", 30 * DAY, HOUR..=3650 * DAY),
        hours: reader.duration("keep_hours", 400 * DAY, DAY..=3650 * DAY),
        events: reader.duration("keep_events", 90 * DAY, HOUR..=3650 * DAY),
        commands: reader.duration("keep_commands", 400 * DAY, DAY..=3650 * DAY),
        audit: reader.duration("keep_audit", 400 * DAY, DAY..=3650 * DAY),
        max_size: reader.parsed("database_max_size", |text| {
            let size = quantity::bytes(text)?;
            match size >= SMALLEST {
                true => Ok(size),
                false => Err(format!("{text:?} is too small: at least 4MiB")),
            }
        }),
    };
    let longer = [
        ("keep_minutes", "keep_raw", keep.minutes, keep.raw),
        ("keep_hours", "keep_minutes", keep.hours, keep.minutes),
    ];
    for (key, other, long, short) in longer {
        if long < short {
            reader.mistake(key, format!("{long:?} is shorter than {other}, which is {short:?}"));
        }
    }
    keep
}

pub(super) fn backup(reader: &mut Reader) -> Option<Backup> {
    reader.table("backup", |table| {
        let dir = table.path("dir");
        if dir.is_none() && !table.was_wrong("dir") {
            table.mistake("dir", "is missing");
        }
        let every = table.duration("every", DAY, MINUTE..=400 * DAY);
        let keep = table.parsed("keep", |text| match text.parse() {
            Ok(keep @ 1..=MOST_COPIES) => Ok(keep),
            _ => Err(format!("{text:?} is not a number of copies: 1 to {MOST_COPIES}")),
        });
        Some(Backup { dir: dir?, every, keep: keep.unwrap_or(7) })
    })
}
