//! A little room on the disk that is kept for one purpose: SQLite cannot open a database where
//! not even its index of the log can be made, and a program that could not start on a full disk
//! would not poll either. The reserve is given up then, and taken again when there is room.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::beside;

/// The index of the write-ahead log takes 32 KiB at first, its head and some pages little more.
const SIZE: usize = 128 * 1024;

/// Takes the room, unless that is done already. A disk without it is no error: it is tried again.
pub(super) fn take(database: &Path) {
    let path = beside(database, "-reserve");
    let taken = fs::metadata(&path).is_ok_and(|file| file.len() == SIZE as u64);
    if taken {
        return;
    }
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&[0; SIZE])?;
        file.sync_all()
    });
    if let Err(error) = written {
        tracing::debug!(path = %path.display(), %error, "no room is reserved");
        let _ = fs::remove_file(&path);
    }
}

/// Gives it up; whether there was any.
pub(super) fn give_up(database: &Path) -> bool {
    fs::remove_file(beside(database, "-reserve")).is_ok()
}
