//! The npm `pm2-metrics` exporter, to be compared with.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::client::Client;
use crate::folder::Folder;
use crate::port::Port;
use crate::wait::{wait_blocking, wait_until};
use crate::{process, setup};

/// One that runs; killed on drop.
#[derive(Debug)]
pub struct Pm2Metrics {
    child: Child,
    client: Client,
    _folder: Folder,
    _port: Port,
}

impl Pm2Metrics {
    /// Beside the daemon of a PM2_HOME, which must run: without one, it starts its own PM2.
    ///
    /// # Errors
    /// It is not installed, or does not answer within 20 s.
    pub async fn start(home: &Path, mark: &str) -> anyhow::Result<Self> {
        let (folder, port) = (Folder::new()?, Port::free()?);
        let script = setup::here().join("npm/node_modules/pm2-metrics/exporter.js");
        anyhow::ensure!(script.is_file(), "pm2-metrics is missing: run e2e/setup/node");
        // Its library takes settings from a variable of the module's name, and calls a module
        // that PM2 did not start by this one.
        let settings = format!("{{\"port\":{},\"host\":\"127.0.0.1\"}}", port.number());
        let child = Command::new("node")
            .arg(script)
            .current_dir(folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", folder.path())
            .env("PM2_HOME", home)
            .env("NODE_ENV", "production")
            .env("outside-pm2", settings)
            .env(process::MARK, mark)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let client = Client::new(format!("http://{}", port.address()))?;
        let this = Self { child, client, _folder: folder, _port: port };
        wait_until("pm2-metrics shows a process", Duration::from_secs(20), async || {
            let answer = this.client.get("/metrics").await.ok()?;
            answer.text.contains("pm2_up{").then_some(())
        })
        .await?;
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
}

impl Drop for Pm2Metrics {
    fn drop(&mut self) {
        let _ = self.child.kill();
        wait_blocking(Duration::from_secs(5), || !matches!(self.child.try_wait(), Ok(None)));
    }
}
