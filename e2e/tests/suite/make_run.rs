//! `make run` itself: starts, tells, is used, ends; and cleans up after one that was killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result};
use e2e::process::{is_alive, marked, signal};
use e2e::scene;
use e2e::{Client, Folder, SOON, rpc, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

struct Run {
    child: Child,
    page: String,
    token: String,
    restart: String,
    stdout: BufReader<ChildStdout>,
}

impl Drop for Run {
    fn drop(&mut self) {
        // Asked first: a killed one leaves its children to the next.
        if matches!(self.child.try_wait(), Ok(None)) {
            signal(self.child.id(), Signal::TERM);
            e2e::wait::wait_blocking(SOON, || !matches!(self.child.try_wait(), Ok(None)));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One after the other: each that begins ends what another left behind, which is what one of them
/// looks at.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn after<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    Some(line.trim().strip_prefix(word)?.trim())
}

fn command(folder: &Path) -> Result<Command> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_run"));
    let programs = e2e::program::binary("pm2-exporter")?;
    command
        .env("PM2_FLEET_RUN", folder)
        .env("PM2_FLEET_BIN", programs.parent().context("no folder")?)
        .stdin(Stdio::null());
    Ok(command)
}

async fn start(folder: &Path) -> Result<Run> {
    let mut child = command(folder)?.stdout(Stdio::piped()).spawn()?;
    let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
    let mut run =
        Run { child, page: String::new(), token: String::new(), restart: String::new(), stdout };
    // Ends with the program at the latest, which has deadlines of its own.
    let mut line = String::new();
    while run.stdout.read_line(&mut line)? > 0 {
        if let Some(page) = after(&line, "Page") {
            run.page = page.trim_end_matches('/').to_owned();
        } else if let Some(token) = after(&line, "Admin token") {
            run.token = token.to_owned();
        } else if line.trim().starts_with("curl ") {
            run.restart = line.trim().to_owned();
        } else if line.contains("Ctrl-C") {
            return Ok(run);
        }
        line.clear();
    }
    anyhow::bail!("make run ended: {:?}", run.child.wait()?)
}

fn mark(folder: &Path) -> Result<String> {
    Ok(std::fs::read_to_string(folder.join("mark"))?)
}

#[tokio::test]
async fn all_of_it_runs_can_be_used_and_ends() -> Result<()> {
    let _one = ONE.lock().await;
    let folder = Folder::new()?;
    let mut run = start(folder.path()).await?;
    let mark = mark(folder.path())?;
    let admin = Client::new(&run.page)?.with_token(&run.token);
    assert!(admin.get("/").await?.ok()?.contains("vm1-prod"));

    // Six processes, all of them serving.
    let six = ["admin-server", "slot-a", "slot-b", "slot-c", "slot-d", "slot-e"];
    wait_until("the six default processes are online", SOON, async || {
        let page = scene::metrics(&admin).await.ok()?;
        let up = |name: &&str| {
            let labels = [("server", "vm1-prod"), ("name", *name)];
            page.value("pm2_process_up", &labels).is_ok_and(|up| up == 1.0)
        };
        (six.iter().all(up) && page.all("pm2_process_up", &[]).len() == 6).then_some(())
    })
    .await?;
    let state: Value = admin.json("/api/servers/vm1-prod/slots").await?;
    let slots = state["slots"].as_array().context("no slots")?;
    assert_eq!(slots.len(), 5);
    for slot in slots {
        assert_eq!(slot["type"], "placeholder", "{slot}");
        let port = slot["port"].as_u64().context("no port")?;
        let health: Value =
            Client::new(format!("http://127.0.0.1:{port}"))?.json("/health").await?;
        assert_eq!(health["slot"], slot["slot"]);
        assert_eq!(health["type"], "placeholder");
    }

    // Who may read logs is not let in by what stands there.
    let path = "/api/servers/vm1-prod/apps/admin-server/logs?lines=1000&stream=all";
    let log = wait_until("the admin server says how it gets its first admin", SOON, async || {
        let text = admin.get(path).await.ok()?.ok().ok()?;
        text.contains("neither user nor token").then_some(text)
    })
    .await?;
    assert!(log.contains(".first-admin") && !log.contains("key="), "{log}");

    // The line that it prints works as it stands.
    let home = folder.join("pm2");
    let pid = |name: &str| -> Option<Value> {
        let all = rpc::call(&home, "getMonitorData", json!({})).ok()?;
        let found = all.as_array()?.iter().find(|process| process["name"] == name)?;
        Some(found["pid"].clone())
    };
    let before = pid("slot-a").context("no slot-a")?;
    let output = Command::new("sh").args(["-c", &format!("{} --silent", run.restart)]).output()?;
    let record: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stdout).into_owned())?;
    assert_eq!(record["status"], "succeeded", "{record}");
    assert_ne!(pid("slot-a"), Some(before));

    // One at a time.
    let second = command(folder.path())?.output()?;
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another 'make run'"));

    assert!(marked(&mark).len() >= 9, "PM2, six processes, exporter, poller");
    signal(run.child.id(), Signal::INT);
    let status = wait_until("it ends", SOON, async || run.child.try_wait().ok().flatten());
    assert_eq!(status.await?.code(), Some(0));
    assert!(marked(&mark).is_empty());
    Ok(())
}

#[tokio::test]
async fn one_that_was_killed_is_cleaned_up_by_the_next() -> Result<()> {
    let _one = ONE.lock().await;
    let folder = Folder::new()?;
    let mut first = start(folder.path()).await?;
    let left = mark(folder.path())?;
    first.child.kill()?;
    first.child.wait()?;
    assert!(marked(&left).len() >= 9);
    let second = start(folder.path()).await?;
    assert!(marked(&left).is_empty());
    Client::new(&second.page)?.get("/healthz").await?.ok()?;
    let own = mark(folder.path())?;
    drop(second);
    assert!(marked(&own).is_empty());
    Ok(())
}

#[tokio::test]
async fn a_child_that_dies_ends_all_with_1() -> Result<()> {
    let _one = ONE.lock().await;
    let folder = Folder::new()?;
    let mut run = start(folder.path()).await?;
    let mark = mark(folder.path())?;
    let pm2: u32 = std::fs::read_to_string(folder.join("pm2/pm2.pid"))?.trim().parse()?;
    let is_poller = |pid: &u32| {
        let parent = e2e::process::stat(*pid).map(|stat| stat.parent);
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        // The other poller is a child of PM2.
        parent == Some(run.child.id()) && name.trim() == "pm2-poller"
    };
    let poller = marked(&mark).into_iter().find(is_poller).context("no poller")?;
    signal(poller, Signal::KILL);
    let status = wait_until("it ends", SOON, async || run.child.try_wait().ok().flatten());
    assert_eq!(status.await?.code(), Some(1));
    assert!(marked(&mark).is_empty() && !is_alive(pm2));
    Ok(())
}
