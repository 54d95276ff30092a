//! The simulated fleet as a process of its own, so that what it uses is not counted with what
//! is measured.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;

use crate::folder::Folder;
use crate::process;
use crate::program::binary;
use crate::wait::{SOON, wait_blocking};

/// `fleet-sim`, running; killed on drop.
#[derive(Debug)]
pub struct SimulatorProcess {
    child: Child,
    folder: Folder,
}

impl SimulatorProcess {
    /// Starts it with these arguments and waits until it listens, which takes it a moment for
    /// thousands of servers.
    ///
    /// # Errors
    /// It is not built, or ends at once.
    pub async fn start(arguments: &[String]) -> anyhow::Result<Self> {
        let folder = Folder::new()?;
        let path = binary("fleet-sim")?;
        let mut child = Command::new(&path)
            .args(["--port", "0", "--poller-servers"])
            .arg(folder.join("servers.toml"))
            .arg("--prometheus-targets")
            .arg(folder.join("targets.json"))
            .args(arguments)
            .env(process::MARK, process::new_mark())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| path.display().to_string())?;
        let stdout = child.stdout.take().context("no stdout")?;
        let this = Self { child, folder };
        // Ends with its end, at the latest when `this` is dropped.
        let said = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        });
        let said = tokio::time::timeout(Duration::from_secs(30), said).await;
        let said = said.context("the simulator does not begin")???;
        anyhow::ensure!(said.contains("servers"), "the simulator said {said:?}");
        Ok(this)
    }

    /// `[[servers]]` blocks for a poller.
    ///
    /// # Errors
    /// The file that it wrote is gone.
    pub fn blocks(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.folder.join("servers.toml"))?)
    }

    /// A target list for Prometheus (`file_sd`).
    pub fn targets(&self) -> PathBuf {
        self.folder.join("targets.json")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for SimulatorProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        wait_blocking(SOON, || !matches!(self.child.try_wait(), Ok(None)));
    }
}
