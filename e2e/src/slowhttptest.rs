//! Debian's slowhttptest: many connections that begin a request and never end it.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;

use crate::folder::Folder;
use crate::wait::{SOON, wait_blocking};

/// An attack under way; ended on drop.
#[derive(Debug)]
pub struct SlowHeaders {
    child: Child,
    folder: Folder,
}

impl SlowHeaders {
    /// `connections` to `url`, for `time`: each sends a header of its request every second.
    ///
    /// # Errors
    /// It is not installed.
    pub fn begin(url: &str, connections: u32, time: Duration) -> anyhow::Result<Self> {
        let folder = Folder::new()?;
        let log = std::fs::File::create(folder.join("log"))?;
        let child = Command::new("slowhttptest")
            .args(["-H", "-c", &connections.to_string(), "-r", "1000", "-i", "1", "-x", "24"])
            .args(["-l", &time.as_secs().to_string(), "-p", "2", "-u", url])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("slowhttptest is not installed: e2e/setup/debian slowhttptest")?;
        Ok(Self { child, folder })
    }

    /// Whether it goes on.
    pub fn goes_on(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it says of itself.
    pub fn report(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for SlowHeaders {
    fn drop(&mut self) {
        let _ = self.child.kill();
        wait_blocking(SOON, || !matches!(self.child.try_wait(), Ok(None)));
    }
}
