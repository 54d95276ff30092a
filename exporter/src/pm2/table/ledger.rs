//! Counters, which outlive what they count.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};
use wire::{ExitInfo, Instance, RestartCounts, Time};

use super::Table;

/// Counters of an instance: they outlive `pm_id`, `pm2 reset`, the daemon and, where there is a
/// file for them, this program.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Ledger {
    pub(super) restarts: RestartCounts,
    pub(super) exceptions: u64,
    /// Start of the run that was counted last.
    pub(super) last_start: Option<Time>,
    /// PM2's own restart counter then.
    pub(super) restart_time: u64,
    pub(super) last_exit: Option<ExitInfo>,
    pub(super) log_out_bytes: u64,
    pub(super) log_err_bytes: u64,
    /// How long the file of stderr was when the last run ended.
    pub(super) err_log_before: u64,
    /// The files of both, and what had been counted of them then.
    log_out_mark: Option<LogMark>,
    log_err_mark: Option<LogMark>,
    /// It was taken up from a file: its logs may have grown since.
    #[serde(skip)]
    restored: [bool; 2],
    /// Since the process came, its logs were looked at.
    #[serde(skip)]
    pub(super) looked: [bool; 2],
}

/// A log file as it once was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLook {
    device: u64,
    inode: u64,
    size: u64,
}

impl LogLook {
    /// As it is.
    pub fn of(file: &Metadata) -> Self {
        Self { device: file.dev(), inode: file.ino(), size: file.size() }
    }
}

/// A log file, and what had been counted of all that its process logs when it was so long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct LogMark {
    device: u64,
    inode: u64,
    size: u64,
    /// All of it and perhaps more: some moments later.
    counted: u64,
    /// Bytes counted for each of the file: the bus tells quotes and the like escaped.
    weight: f64,
    /// From where that is measured: the file's size, and what the bus had told by then.
    from: (u64, u64),
}

impl LogMark {
    /// Less says nothing of how much is escaped.
    const TELLING: u64 = 1024;
    /// The longest escape: `\u001b`.
    const MOST: f64 = 6.0;
    /// Until it was measured: JSON, which is quotes all over.
    const UNKNOWN: f64 = 1.5;
    /// How much the part that is escaped varies.
    const MARGIN: f64 = 1.1;

    fn new(before: Option<Self>, then: LogLook, told: u64, counted: u64) -> Self {
        let LogLook { device, inode, size } = then;
        let (mut weight, mut from) = (Self::UNKNOWN, (size, told));
        if let Some(before) = before {
            weight = before.weight;
            match size.checked_sub(before.from.0).filter(|_| before.is_of(then)) {
                Some(more @ Self::TELLING..) => {
                    weight = told.saturating_sub(before.from.1) as f64 / more as f64;
                }
                Some(_) => from = before.from,
                None => {}
            }
        }
        Self { device, inode, size, counted, weight: weight.clamp(1.0, Self::MOST), from }
    }

    fn is_of(&self, file: LogLook) -> bool {
        (self.device, self.inode) == (file.device, file.inode)
    }

    /// What is counted by now, as far as the file's growth says; nothing where it is another file.
    fn grown(&self, now: LogLook) -> Option<u64> {
        // One that is shorter was emptied, and has grown from nothing.
        let grown = now.size.checked_sub(self.size).unwrap_or(now.size);
        let escaped = (self.weight.clamp(1.0, Self::MOST) - 1.0) * Self::MARGIN;
        let grown = grown.saturating_add((grown as f64 * escaped).round() as u64);
        self.is_of(now).then(|| self.counted.saturating_add(grown))
    }
}

impl Ledger {
    fn log(&mut self, is_error: bool) -> (&mut u64, &mut Option<LogMark>) {
        match is_error {
            true => (&mut self.log_err_bytes, &mut self.log_err_mark),
            false => (&mut self.log_out_bytes, &mut self.log_out_mark),
        }
    }
}

/// A log file to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueLog {
    /// Whose.
    pub pm_id: u32,
    /// stderr; stdout otherwise.
    pub is_error: bool,
    /// The file.
    pub path: Box<str>,
    /// Bytes that had been counted by then.
    told: u64,
}

/// An instance's counters, as they are kept in a file.
#[derive(Debug, Serialize, Deserialize)]
struct KeptLedger {
    #[serde(flatten)]
    instance: Instance,
    #[serde(flatten)]
    ledger: Ledger,
}

impl Table {
    /// Takes up counters that [`Self::counters`] gave.
    ///
    /// # Errors
    /// They make no sense; the table is then as it was.
    pub fn restore(&mut self, json: &[u8]) -> Result<(), serde_json::Error> {
        let kept: Vec<KeptLedger> = serde_json::from_slice(json)?;
        let in_home = |instance| Instance { pm2_home: self.home.clone(), ..instance };
        let restored = |ledger| Ledger { restored: [true; 2], ..ledger };
        self.ledgers =
            kept.into_iter().map(|kept| (in_home(kept.instance), restored(kept.ledger))).collect();
        Ok(())
    }

    /// A run ended when the file of its stderr was this long.
    pub fn ended_at_err_log(&mut self, pm_id: u32, length: u64) {
        if let Some(row) = self.rows.get(&pm_id)
            && let Some(ledger) = self.ledgers.get_mut(&row.instance)
        {
            ledger.err_log_before = length;
        }
    }

    /// Logs that were not looked at since their process came; or, `grown`, those of which bytes
    /// were counted since they were last marked.
    pub fn due_logs(&self, grown: bool) -> Vec<DueLog> {
        let mut due = Vec::new();
        for row in self.rows.values() {
            let Some(ledger) = self.ledgers.get(&row.instance) else { continue };
            for (is_error, path, bytes, mark) in [
                (false, &row.listed.out_log, ledger.log_out_bytes, ledger.log_out_mark),
                (true, &row.listed.err_log, ledger.log_err_bytes, ledger.log_err_mark),
            ] {
                let wanted = match grown {
                    true => mark.is_none_or(|mark| mark.counted != bytes),
                    false => !ledger.looked[usize::from(is_error)],
                };
                if wanted && !matches!(&**path, "" | "/dev/null" | "NULL") {
                    let (pm_id, path) = (row.listed.pm_id, path.clone());
                    due.push(DueLog { pm_id, is_error, path, told: bytes });
                }
            }
        }
        due
    }

    /// The first look at a log since its process came. What it has grown by since the counters were
    /// kept was logged while nobody counted, or was counted and not kept any more: a count goes on
    /// at or above what was once shown. Of a file that several processes share each has the whole.
    pub fn first_look(&mut self, log: &DueLog, now: LogLook) {
        let Some(row) = self.rows.get(&log.pm_id) else { return };
        let Some(ledger) = self.ledgers.get_mut(&row.instance) else { return };
        let restored = std::mem::take(&mut ledger.restored[usize::from(log.is_error)]);
        let (bytes, mark) = ledger.log(log.is_error);
        if restored && let Some(grown) = mark.and_then(|mark| mark.grown(now)) {
            *bytes = grown.max(*bytes);
        }
        // What was reckoned from the file says nothing of how the bus tells it.
        let weight = mark.map_or(LogMark::UNKNOWN, |mark| mark.weight);
        *mark = Some(LogMark { weight, ..LogMark::new(None, now, *bytes, *bytes) });
        ledger.looked[usize::from(log.is_error)] = true;
        self.counted = true;
    }

    /// A log was so, some moments ago: what it held then has been counted by now.
    pub fn mark(&mut self, log: &DueLog, then: LogLook) {
        let Some(row) = self.rows.get(&log.pm_id) else { return };
        let Some(ledger) = self.ledgers.get_mut(&row.instance) else { return };
        let (bytes, mark) = ledger.log(log.is_error);
        *mark = Some(LogMark::new(*mark, then, log.told, *bytes));
        self.counted = true;
    }

    /// All counters as JSON, if they changed since this was last asked.
    pub fn counters(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.counted) {
            return None;
        }
        let mut all: Vec<KeptLedger> = self
            .ledgers
            .iter()
            .map(|(instance, ledger)| KeptLedger {
                instance: instance.clone(),
                ledger: ledger.clone(),
            })
            .collect();
        all.sort_by(|a, b| a.instance.cmp(&b.instance));
        serde_json::to_vec(&all).ok()
    }
}
