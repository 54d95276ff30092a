//! Counters, which outlive what they count.

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
        self.ledgers = kept.into_iter().map(|kept| (in_home(kept.instance), kept.ledger)).collect();
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
