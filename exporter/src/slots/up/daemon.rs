//! Starting a PM2 daemon, where none runs.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::{DAEMON, Workspace};
use crate::slots::env::Env;
use crate::slots::start::on_path;

impl Workspace {
    /// Starts a daemon by the `pm2` command, and what it ran before it went down.
    pub(super) async fn start_daemon(&mut self) -> anyhow::Result<()> {
        let home = &self.workshop.home;
        let cli = match &self.workshop.settings.pm2 {
            Some(path) => path.clone(),
            None => on_path("pm2", &self.workshop.path()).context(
                "no PM2 daemon runs, and there is no pm2 on the PATH to start one; \
                 name it as [slots] pm2",
            )?,
        };
        let restores = home.join("dump.pm2").exists();
        let word = if restores { "resurrect" } else { "ping" };
        let mut env: Env = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ"]
            .into_iter()
            .map(str::to_owned)
            .chain(self.workshop.settings.inherit.iter().cloned())
            .filter_map(|name| Some((name.clone(), (self.workshop.own)(&name)?)))
            .collect();
        env.insert("PM2_HOME".to_owned(), home.display().to_string());
        env.insert("PM2_DISCRETE_MODE".to_owned(), "true".to_owned());
        let mut command = Command::new(&self.workshop.node);
        if is_executable_alone(&cli) {
            command = Command::new(&cli);
        } else {
            command.arg(&cli);
        }
        let mut child = command
            .arg(word)
            .env_clear()
            .envs(&env)
            .current_dir("/")
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be run", cli.display()))?;
        let status = timeout(DAEMON * 2, child.wait())
            .await
            .with_context(|| format!("'pm2 {word}' takes over {:?}", DAEMON * 2))??;
        let until = Instant::now() + DAEMON;
        while !self.connect().await? {
            if Instant::now() >= until {
                bail!(
                    "'pm2 {word}' ended with {status}, and no daemon answers in {}",
                    self.workshop.home.display()
                );
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

/// Whether a file says itself what runs it; npm's `bin` links do.
fn is_executable_alone(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0)
}
