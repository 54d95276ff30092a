//! A real PM2 daemon with a PM2_HOME of its own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::folder::{Folder, SOCKET_PATH_MAX};
use crate::wait::{SOON, wait_blocking, wait_until};
use crate::{process, rpc, setup};

/// How long one call of the `pm2` command may take.
const CLI: Duration = Duration::from_secs(120);
/// What ends by itself within this time needs no killing.
const GRACE: Duration = Duration::from_secs(10);

/// A daemon that runs. It and everything it started is killed on drop.
#[derive(Debug)]
pub struct Pm2 {
    home: PathBuf,
    mark: String,
    folder: Folder,
    variables: Vec<(String, String)>,
}

impl Pm2 {
    /// The PM2 that [`setup::pm2_daemon_cli`] names, in a folder of its own.
    ///
    /// # Errors
    /// It is not installed or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(&[]).await
    }

    /// With this PM2_HOME, which stays afterwards, and this value of [`process::MARK`].
    ///
    /// # Errors
    /// As [`Pm2::start`], or the path is too long for the sockets in it.
    pub async fn start_at(home: &Path, mark: &str) -> anyhow::Result<Self> {
        let (folder, mark) = (Folder::new()?, mark.to_owned());
        Self::start_in(home.to_owned(), folder, mark, Vec::new()).await
    }

    /// With further environment variables for the daemon and all that it starts.
    ///
    /// # Errors
    /// As [`Pm2::start`].
    pub async fn start_with(variables: &[(&str, &str)]) -> anyhow::Result<Self> {
        let folder = Folder::new()?;
        let home = folder.join("pm2");
        let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let variables = variables.collect();
        Self::start_in(home, folder, process::new_mark(), variables).await
    }

    async fn start_in(
        home: PathBuf,
        folder: Folder,
        mark: String,
        variables: Vec<(String, String)>,
    ) -> anyhow::Result<Self> {
        let socket = home.join("rpc.sock");
        anyhow::ensure!(
            socket.as_os_str().len() <= SOCKET_PATH_MAX,
            "{} is longer than the {SOCKET_PATH_MAX} bytes that a socket's path may have",
            socket.display()
        );
        for cli in [setup::pm2_cli(), setup::pm2_daemon_cli()] {
            anyhow::ensure!(cli.is_file(), "{} is missing: run e2e/setup/node", cli.display());
        }
        let pm2 = Self { home, mark, folder, variables };
        pm2.ensure_daemon().await?;
        Ok(pm2)
    }

    /// Starts the daemon again after [`Pm2::kill_daemon`]; nothing where it runs.
    ///
    /// # Errors
    /// It does not start.
    pub async fn ensure_daemon(&self) -> anyhow::Result<()> {
        self.run(&setup::pm2_daemon_cli(), &["ping"]).await?;
        wait_until("the PM2 daemon answers", SOON, async || {
            rpc::call(&self.home, "ping", json!({})).ok()
        })
        .await?;
        Ok(())
    }

    /// Its PM2_HOME.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// A folder for the files of a test, gone with this.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// What marks its processes: the value of [`process::MARK`].
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// Runs the `pm2` command and gives its stdout.
    ///
    /// # Errors
    /// It fails, or takes over 60 s.
    pub async fn cli(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run(&setup::pm2_cli(), arguments).await
    }

    async fn run(&self, cli: &Path, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::new("node");
        command
            .arg(cli)
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("LANG", "C.UTF-8")
            .env("PM2_HOME", &self.home)
            .env("PM2_DISCRETE_MODE", "true")
            .env(process::MARK, &self.mark)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let output = tokio::time::timeout(CLI, command.output())
            .await
            .with_context(|| format!("pm2 {arguments:?} takes over {CLI:?}"))??;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        anyhow::ensure!(
            output.status.success(),
            "pm2 {arguments:?}: {stdout}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(stdout)
    }

    /// Starts applications, each a record as in an ecosystem file. `script` may be the bare
    /// name of a file in `e2e/apps`.
    ///
    /// # Errors
    /// PM2 refuses.
    pub async fn start_apps(&self, mut apps: Vec<Value>) -> anyhow::Result<()> {
        for app in &mut apps {
            let script = app["script"].as_str().context("an app without a script")?.to_owned();
            if !script.contains('/') {
                app["script"] = setup::app(&script).display().to_string().into();
            }
        }
        let text = json!({ "apps": apps }).to_string();
        let path = self.folder.write("apps.json", &text)?;
        self.cli(&["start", &path.display().to_string()]).await?;
        // It tells of a start only once it has looked at the version of the code, after the command has
        // ended or long after.
        wait_until("PM2 has told of every start", SOON, async || {
            let late = |process: &Value| {
                let env = &process["pm2_env"];
                env["status"] == "launching"
                    || env["status"] == "online" && env["vizion_running"] == true
            };
            (!self.processes().ok()?.iter().any(late)).then_some(())
        })
        .await
    }

    /// Its processes, as the daemon tells them.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn processes(&self) -> anyhow::Result<Vec<Value>> {
        match rpc::call(&self.home, "getMonitorData", json!({}))? {
            Value::Array(processes) => Ok(processes),
            other => anyhow::bail!("not a list of processes: {other}"),
        }
    }

    /// The processes of one name.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn processes_of(&self, name: &str) -> anyhow::Result<Vec<Value>> {
        let mut processes = self.processes()?;
        processes.retain(|process| process["name"] == name);
        Ok(processes)
    }

    /// The operating system's id of the one process of a name.
    ///
    /// # Errors
    /// There is no such process, or it does not run.
    pub fn pid_of(&self, name: &str) -> anyhow::Result<u32> {
        let processes = self.processes_of(name)?;
        let pid = processes.first().and_then(|process| process["pid"].as_u64());
        let pid = pid.filter(|pid| *pid > 0).with_context(|| format!("{name} does not run"))?;
        Ok(u32::try_from(pid)?)
    }

    /// Waits until exactly `count` processes of a name have a status, and gives them.
    ///
    /// # Errors
    /// That is not so within 20 s.
    pub async fn wait_for(
        &self,
        name: &str,
        status: &str,
        count: usize,
    ) -> anyhow::Result<Vec<Value>> {
        let what = format!("{count} processes {name} are {status}");
        wait_until(&what, SOON, async || {
            let mut processes = self.processes_of(name).ok()?;
            processes.retain(|process| process["pm2_env"]["status"] == status);
            (processes.len() == count).then_some(processes)
        })
        .await
    }

    /// The daemon's id.
    ///
    /// # Errors
    /// It left none.
    pub fn daemon(&self) -> anyhow::Result<u32> {
        let text = std::fs::read_to_string(self.home.join("pm2.pid")).context("no pm2.pid")?;
        Ok(text.trim().parse()?)
    }

    /// Stops the daemon as a hung one: it takes connections and says nothing.
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze(&self) -> anyhow::Result<()> {
        process::signal(self.daemon()?, Signal::STOP);
        Ok(())
    }

    /// Ends that.
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&self) -> anyhow::Result<()> {
        process::signal(self.daemon()?, Signal::CONT);
        Ok(())
    }

    /// Kills the daemon with SIGKILL, and what it started as well, and waits for their end.
    ///
    /// # Errors
    /// Something would not die.
    pub fn kill_daemon(&self) -> anyhow::Result<()> {
        let daemon = self.daemon().ok().filter(|daemon| self.running().contains(daemon));
        if let Some(daemon) = daemon {
            process::signal(daemon, Signal::KILL);
        }
        let left = process::end_all(|| self.running());
        anyhow::ensure!(left.is_empty(), "still there: {left:?}");
        // Its environment, by which it is known, goes before its sockets do.
        let ended = wait_blocking(SOON, || daemon.is_none_or(|daemon| !process::is_alive(daemon)));
        anyhow::ensure!(ended, "the daemon does not end");
        Ok(())
    }

    /// Asks the daemon to end with everything, as `systemctl stop` does; kills what is left.
    ///
    /// # Errors
    /// Something would not die.
    pub async fn stop(&self) -> anyhow::Result<()> {
        if let Ok(daemon) = self.daemon()
            && self.running().contains(&daemon)
        {
            process::signal(daemon, Signal::TERM);
            let _ = wait_until("PM2 ends", GRACE, async || self.running().is_empty().then_some(()))
                .await;
        }
        self.kill_daemon()
    }

    /// Everything of it that runs: the daemon, its descendants, and those of them that have
    /// lost their parent.
    pub fn running(&self) -> BTreeSet<u32> {
        let mut running = process::marked(&self.mark);
        for pid in running.clone() {
            running.extend(process::descendants(pid));
        }
        running
    }
}

impl Drop for Pm2 {
    fn drop(&mut self) {
        if let Err(error) = self.kill_daemon() {
            eprintln!("PM2 in {}: {error}", self.home.display());
        }
        let folder = self.folder.path().to_owned();
        process::end_all(|| process::of_slots(&folder));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn starts_apps_and_takes_all_of_them_along() {
        let pm2 = Pm2::start().await.unwrap();
        pm2.start_apps(vec![
            json!({"name": "web", "script": "web.js"}),
            json!({"name": "stubborn", "script": "stubborn.js"}),
            json!({"name": "family", "script": "family.js"}),
        ])
        .await
        .unwrap();
        pm2.wait_for("web", "online", 1).await.unwrap();
        let mark = pm2.mark().to_owned();
        wait_until("daemon, three apps and a child", SOON, async || {
            (pm2.running().len() >= 5).then_some(())
        })
        .await
        .unwrap();
        drop(pm2);
        assert!(process::marked(&mark).is_empty());
    }

    #[tokio::test]
    async fn leaves_nothing_behind_on_a_panic() {
        let (tell, told) = std::sync::mpsc::channel();
        let test = async move {
            let pm2 = Pm2::start().await.unwrap();
            tell.send(pm2.mark().to_owned()).unwrap();
            panic!("as a failing test does");
        };
        let tasks = tokio::task::LocalSet::new();
        let ended = tasks.run_until(tasks.spawn_local(test)).await;
        assert!(ended.unwrap_err().is_panic());
        assert!(process::marked(&told.recv().unwrap()).is_empty());
    }
}
