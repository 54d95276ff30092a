//! The npm `pm2-metrics` exporter, to be compared with.

use std::path::Path;
use std::process::Command;

use crate::client::Answer;
use crate::folder::Folder;
use crate::foreign::Foreign;
use crate::port::Port;
use crate::{process, setup};

/// One beside the daemon of a PM2_HOME, which must run: without one, it starts its own PM2.
///
/// # Errors
/// It is not installed, or does not answer within 20 s.
pub async fn start(home: &Path, mark: &str) -> anyhow::Result<Foreign> {
    let (folder, port) = (Folder::new()?, Port::free()?);
    let script = setup::here().join("npm/node_modules/pm2-metrics/exporter.js");
    anyhow::ensure!(script.is_file(), "pm2-metrics is missing: run e2e/setup/node");
    // Its library takes settings from a variable of the module's name, and calls a module
    // that PM2 did not start by this one.
    let settings = format!("{{\"port\":{},\"host\":\"127.0.0.1\"}}", port.number());
    let mut command = Command::new("node");
    command
        .arg(script)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", folder.path())
        .env("PM2_HOME", home)
        .env("NODE_ENV", "production")
        .env("outside-pm2", settings)
        .env(process::MARK, mark);
    let ready = |answer: &Answer| answer.text.contains("pm2_up{");
    Foreign::start(command, (folder, port), "/metrics", ready).await
}
