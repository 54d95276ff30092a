//! Folders of the tests' own, short enough for socket paths, and gone afterwards.

use std::path::{Path, PathBuf};
use std::sync::Once;

use anyhow::Context;

use crate::process::{self, Identity};

const PREFIX: &str = "p2e-";

/// Room that a Unix socket's address has for its path.
pub const SOCKET_PATH_MAX: usize = 107;

/// A temporary folder, removed on drop.
#[derive(Debug)]
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// A new one, with what earlier runs left behind cleared away first.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new() -> anyhow::Result<Self> {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep);
        let own = Identity::of(std::process::id()).context("no /proc here")?;
        let name = format!("{PREFIX}{}.{}-", own.pid, own.started);
        let folder = tempfile::Builder::new().prefix(&name).tempdir_in(base())?;
        Ok(Self(folder))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of something in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file in it and gives its path.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

/// The system's folder for such things, unless its path is too long for sockets in it.
fn base() -> PathBuf {
    let base = std::env::temp_dir();
    if base.as_os_str().len() <= 40 { base } else { PathBuf::from("/tmp") }
}

/// Ends processes and removes folders whose starter was killed before it could.
fn sweep() {
    process::end_all(process::orphans);
    for entry in std::fs::read_dir(base()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let starter = name.to_str().and_then(|name| {
            let (pid, rest) = name.strip_prefix(PREFIX)?.split_once('.')?;
            let (started, _) = rest.split_once('-')?;
            Some(Identity { pid: pid.parse().ok()?, started: started.parse().ok()? })
        });
        if starter.is_some_and(|starter| !starter.is_alive()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_short_and_goes_away() {
        let folder = Folder::new().unwrap();
        let path = folder.path().to_owned();
        assert!(path.join("pm2/rpc.sock").as_os_str().len() <= SOCKET_PATH_MAX);
        folder.write("a", "b").unwrap();
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_run_left_is_swept_away() {
        let left = base().join(format!("{PREFIX}{}.1-left", std::process::id()));
        std::fs::create_dir_all(&left).unwrap();
        sweep();
        assert!(!left.exists());
    }
}
