//! Files that are replaced whole, or not at all, whoever else replaces them at the same time.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// Replaces a file, on the disk as well; `mode` is that of the new one.
///
/// # Errors
/// It cannot be written; what was there is there still.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    write(path, bytes, mode, true)
}

/// The same, readable by its owner only, and on the disk when the system pleases: for what is
/// written often, by a thread that others wait for.
///
/// # Errors
/// See [`replace`].
pub(crate) fn replace_soon(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes, 0o600, false)
}

fn write(path: &Path, bytes: &[u8], mode: u32, synced: bool) -> io::Result<()> {
    // `serve` and `slots up` may write at the same time, and each of them for several slots: no
    // two may have the same new file.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let new = path.with_extension(format!("{}-{number}.new", std::process::id()));
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new)?;
        file.write_all(bytes)?;
        if synced {
            file.sync_all()?;
        }
        fs::rename(&new, path)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&new);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_writers_leave_one_whole_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.json");
        std::thread::scope(|scope| {
            for letter in b'a'..b'e' {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..20 {
                        replace(path, &[letter; 100], 0o600).unwrap();
                    }
                });
            }
        });
        let text = fs::read(&path).unwrap();
        assert!(text.len() == 100 && text.iter().all(|letter| *letter == text[0]), "{text:?}");
        fs::create_dir(folder.path().join("folder")).unwrap();
        assert!(replace(&folder.path().join("folder"), b"x", 0o600).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
