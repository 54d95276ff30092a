//! Small files that are read while others wait: regular ones, of a bounded size. Who opens a pipe
//! waits until somebody writes, and a device may never end.

use std::fs::{File, metadata};
use std::io::Read;
use std::path::Path;

/// The whole of a file.
///
/// # Errors
/// What is to be said after its name, without a word of what is in it: it cannot be read, is none, or
/// is longer than `most` bytes.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    if !metadata(path).map_err(cannot)?.is_file() {
        return Err("is no regular file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(cannot)?;
    match bytes.len() as u64 <= most {
        true => Ok(bytes),
        false => Err(format!("is longer than {most} bytes")),
    }
}

/// The whole of a file that holds text.
///
/// # Errors
/// As [`read`], and when it is not UTF-8.
pub fn text(path: &Path, most: u64) -> Result<String, String> {
    String::from_utf8(read(path, most)?).map_err(|_| "is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_read_and_only_so_much_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(text(&path, 5).unwrap(), "12345");
        assert!(text(&path, 4).unwrap_err().contains("longer than 4 bytes"));
        std::fs::write(&path, [0xff]).unwrap();
        assert!(text(&path, 4).unwrap_err().contains("UTF-8"));
        assert!(read(&folder.path().join("b"), 4).unwrap_err().contains("cannot be read"));
        for other in [folder.path(), Path::new("/dev/zero")] {
            assert!(read(other, 4).unwrap_err().contains("no regular file"));
        }
    }
}
