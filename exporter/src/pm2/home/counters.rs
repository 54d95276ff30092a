//! The file that keeps what was counted, so that it never falls.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::sleep;

use super::Home;
use crate::pm2::table::{DueLog, LogLook, Table};
use crate::whole;

/// What is logged is kept this often at most: what came since is found by the files' growth.
const KEEP_LOGGED_EVERY: Duration = Duration::from_secs(5);
/// The bus tells of what stands in a file within this time, or nearly always.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

impl Home {
    /// Something was logged: has that kept soon.
    pub(super) fn keep_logged_soon(self: &Arc<Self>) {
        if self.counters.is_none() || self.keeps_logged.swap(true, Ordering::Relaxed) {
            return;
        }
        let home = Arc::clone(self);
        tokio::spawn(async move {
            sleep(KEEP_LOGGED_EVERY).await;
            let looked = home.look_at_logs(true);
            sleep(TOLD_WITHIN).await;
            home.keeps_logged.store(false, Ordering::Relaxed);
            home.table(|table| looked.iter().for_each(|(log, then)| table.mark(log, *then)));
            home.keep_counters();
        });
    }

    fn look_at_logs(&self, grown: bool) -> Vec<(DueLog, LogLook)> {
        let due = self.table(|table| table.due_logs(grown)).into_iter();
        due.filter_map(|log| {
            let file = std::fs::metadata(&*log.path).ok()?;
            Some((log, LogLook::of(&file)))
        })
        .collect()
    }

    /// Looks at the logs of processes that came, and keeps what was counted.
    pub(super) fn keep_all_counters(&self) {
        if self.counters.is_some() {
            let looked = self.look_at_logs(false);
            self.table(|table| looked.iter().for_each(|(log, now)| table.first_look(log, *now)));
        }
        self.keep_counters();
    }

    /// Writes what was counted, so that it never falls.
    fn keep_counters(&self) {
        let Some(file) = &self.counters else { return };
        let Some(json) = self.table(|table| table.counters()) else { return };
        if let Err(error) = whole::replace_soon(file, &json) {
            tracing::error!(%error, file = %file.display(), "counters cannot be kept");
        }
    }
}

/// A file for each directory, so that what is counted stays with it when others are added, left
/// out or put in another order.
pub(super) fn name(home: &Path) -> String {
    let hash = Sha256::digest(home.as_os_str().as_encoded_bytes());
    let short = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("counters-{short}.json")
}

pub(super) fn restore(table: &mut Table, file: &Path) -> io::Result<()> {
    let json = match std::fs::read(file) {
        Ok(json) => json,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if let Err(error) = table.restore(&json) {
        // Set aside, not thrown away: somebody may want to look.
        let aside = file.with_extension("unreadable");
        tracing::error!(%error, aside = %aside.display(), "kept counters make no sense; they begin anew");
        std::fs::rename(file, aside)?;
    }
    Ok(())
}
