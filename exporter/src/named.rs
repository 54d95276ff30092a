//! Opens files whose paths PM2 or an application names. Whoever may write beside such a file can
//! put something else in its place: a pipe, which would be waited for without end, or a link to
//! a file of somebody else, which would be shown or cut.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a file to be read.
///
/// # Errors
/// It is not there, no file, a link to a file of another user, or cannot be read.
pub(crate) fn read(path: &Path) -> io::Result<File> {
    open(path, OpenOptions::new().read(true))
}

/// Opens a file that is there to be changed.
///
/// # Errors
/// As [`read`].
pub(crate) fn write(path: &Path) -> io::Result<File> {
    open(path, OpenOptions::new().write(true))
}

/// Opens a file that is there to be read and changed.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_and_write(path: &Path) -> io::Result<File> {
    open(path, OpenOptions::new().read(true).write(true))
}

/// Makes a new file, in place of one that an earlier attempt of ours left.
///
/// # Errors
/// Something of another user is there, or it cannot be made.
pub(crate) fn create(path: &Path, mode: u32) -> io::Result<File> {
    let new = || OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    match new() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let there = std::fs::symlink_metadata(path)?;
            if !there.is_file() || there.uid() != rustix::process::geteuid().as_raw() {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            new()
        }
        made => made,
    }
}

fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let quick = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut opened = |flags: OFlags| {
        let file = options.custom_flags(flags.bits().cast_signed()).open(path).map_err(told)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(no_file());
        }
        Ok((file, found.uid()))
    };
    match opened(quick | OFlags::NOFOLLOW) {
        Err(error) if is(&error, rustix::io::Errno::LOOP) => {}
        found => return found.map(|(file, _)| file),
    }
    // Whose link it was is known before it is followed: what it leads to must be theirs, even if it
    // is another link by then.
    let link = std::fs::symlink_metadata(path)?;
    let (file, owner) = opened(quick)?;
    if link.uid() != owner {
        let why = "is a link to a file of another user";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(file)
}

fn is(error: &io::Error, number: rustix::io::Errno) -> bool {
    error.raw_os_error() == Some(number.raw_os_error())
}

/// A pipe that nobody reads, and a socket, are refused with this when they are opened.
fn told(error: io::Error) -> io::Error {
    if is(&error, rustix::io::Errno::NXIO) { no_file() } else { error }
}

fn no_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "is no regular file")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::os::unix::fs::{lchown, symlink};

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let link = folder.path().join("link");
        symlink(&pipe, &link).unwrap();
        for path in [&pipe, &socket, &link, Path::new("/dev/zero"), folder.path()] {
            for opened in [read(path), write(path), read_and_write(path)] {
                assert!(opened.is_err(), "{path:?}");
            }
            assert!(create(path, 0o600).is_err(), "{path:?}");
        }
        assert_eq!(write(&pipe).unwrap_err().to_string(), "is no regular file");
        let missing = read(&folder.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_link_is_followed_to_a_file_of_the_same_user() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        std::fs::write(&file, "x").unwrap();
        symlink(&file, &link).unwrap();
        assert!(read(&link).is_ok() && write(&link).is_ok());
        // Only root can make one of another user.
        if lchown(&link, Some(65_534), None).is_ok() {
            let refused = read(&link).unwrap_err();
            assert_eq!(refused.to_string(), "is a link to a file of another user");
            assert!(write(&link).is_err() && read_and_write(&link).is_err());
            std::os::unix::fs::chown(&file, Some(65_534), None).unwrap();
            assert!(read(&link).is_ok());
        }
    }

    #[test]
    fn a_new_file_takes_the_place_of_a_left_one_and_of_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (new, other) = (folder.path().join("new"), folder.path().join("other"));
        std::fs::write(&new, "left").unwrap();
        assert_eq!(create(&new, 0o600).unwrap().metadata().unwrap().len(), 0);
        std::fs::write(&other, "kept").unwrap();
        std::fs::remove_file(&new).unwrap();
        symlink(&other, &new).unwrap();
        assert!(create(&new, 0o600).is_err());
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "kept");
    }
}
