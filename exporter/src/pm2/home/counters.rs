//! The file that keeps what was counted, so that it never falls.

use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::Home;
use crate::pm2::table::Table;
use crate::whole;

impl Home {
    /// Writes what was counted, so that it never falls.
    pub(super) fn keep_counters(&self) {
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
