//! Programs that are not ours, each on a port and in a folder of its own.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use anyhow::Context;

use crate::client::{Answer, Client};
use crate::folder::Folder;
use crate::port::Port;
use crate::process;
use crate::wait::{SOON, wait_blocking, wait_until};

/// One that runs; killed on drop.
#[derive(Debug)]
pub struct Foreign {
    child: Child,
    client: Client,
    folder: Folder,
    port: Port,
}

impl Foreign {
    /// `command`, once its answer at `path` is one that `is_ready` likes.
    ///
    /// # Errors
    /// It cannot be run, or is not ready within 20 s; the error has its log.
    pub async fn start(
        mut command: Command,
        (folder, port): (Folder, Port),
        path: &str,
        is_ready: impl Fn(&Answer) -> bool,
    ) -> anyhow::Result<Self> {
        let name = command.get_program().display().to_string();
        if !command.get_envs().any(|(key, _)| key == process::MARK) {
            command.env(process::MARK, process::new_mark());
        }
        let child = command
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.join("log"))?)
            .spawn()
            .with_context(|| format!("{name} is not installed: see e2e/setup"))?;
        let client = Client::new(format!("http://{}", port.address()))?;
        let this = Self { child, client, folder, port };
        wait_until(&format!("{name} is ready"), SOON, async || {
            this.client.get(path).await.is_ok_and(|answer| is_ready(&answer)).then_some(())
        })
        .await
        .with_context(|| std::fs::read_to_string(this.folder.join("log")).unwrap_or_default())?;
        Ok(this)
    }

    /// Asks it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `127.0.0.1:9090`
    pub fn address(&self) -> String {
        self.port.address()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.child.kill();
        wait_blocking(SOON, || !matches!(self.child.try_wait(), Ok(None)));
    }
}
