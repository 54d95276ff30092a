//! Rotating a file where it lies: what its beginning holds is packed, and then cut out of it. Nothing else
//! moves, and whoever writes at its end notices nothing. `pm2.log` has no other way, since PM2 never
//! opens it anew; the logs of applications lose nothing by it, while PM2, told to open a new file, throws
//! away what it has in hand. File systems that cannot do that (ext4 and xfs can) keep the file as it is.

use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::{aside, pack};
use crate::named;

/// Rotates it once it has `size` bytes, and keeps `keep`. Gives whether it did.
///
/// # Errors
/// It cannot be read, or what was read cannot be kept; then nothing is cut out.
pub(super) fn rotate(log: &Path, size: u64, keep: usize) -> io::Result<bool> {
    let file = match named::read_and_write(log) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let meta = file.metadata()?;
    // Whole blocks only, and never to the very end.
    let block = meta.blksize().max(1);
    let cut = meta.len().saturating_sub(1) / block * block;
    if !meta.is_file() || meta.len() < size || cut == 0 || !can_cut(log, block) {
        return Ok(false);
    }
    let aside = aside(log);
    let mode = meta.permissions().mode() & 0o777;
    let mut copy = named::create(&aside, mode)?;
    let copied = io::copy(&mut (&file).take(cut), &mut copy).and_then(|_| copy.sync_all());
    // The copy is on disk first: a crash here leaves a line twice, and none nowhere.
    let done = copied.and_then(|()| {
        fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, cut).map_err(io::Error::from)
    });
    if let Err(error) = done {
        // A part of a copy takes room, and would be taken for a rotated file.
        std::fs::remove_file(&aside)?;
        return Err(error);
    }
    pack(&aside, keep)?;
    Ok(true)
}

/// Whether the file system cuts blocks out of files: tried on one of ours beside it.
fn can_cut(log: &Path, block: u64) -> bool {
    let trial = log.with_extension("cut");
    let tried = || -> io::Result<()> {
        let file = named::create(&trial, 0o600)?;
        let cut = file.set_len(block * 2).and_then(|()| {
            fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, block).map_err(Errno::into)
        });
        std::fs::remove_file(&trial)?;
        cut
    };
    tried().is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::rotated;
    use super::*;
    use std::fs::{File, OpenOptions};
    use std::io::Write;

    #[test]
    fn nothing_is_lost_while_somebody_writes() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("pm2.log");
        // Kept open all the time, as the daemon does.
        let mut writer = OpenOptions::new().append(true).create(true).open(&log).unwrap();
        let mut written = String::new();
        for number in 0..4_000 {
            let line = format!("line {number} of the daemon's own\n");
            writer.write_all(line.as_bytes()).unwrap();
            written += &line;
            if number % 500 == 0 {
                let done = rotate(&log, 10_000, 50).unwrap();
                assert_eq!(done, number > 0 && can_cut(&log, 4096), "{number}");
            }
        }
        let mut text = String::new();
        for packed in rotated(&log, "log.gz") {
            flate2::read::GzDecoder::new(File::open(packed).unwrap())
                .read_to_string(&mut text)
                .unwrap();
        }
        text += &std::fs::read_to_string(&log).unwrap();
        assert!(text == written, "{} and {}", text.len(), written.len());
    }
}
