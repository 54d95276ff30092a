//! The exporter only looks: it starts nothing, writes nothing, and runs no other program.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::process::{descendants, marked};
use e2e::scene::{self, metrics, wait_for_instances};
use e2e::{Folder, Launch, Pm2, Program, SOON, Stopwatch, wait_until};
use serde_json::json;
use wire::Status;

/// Every file below a folder with its kind, size and time of change; a socket's and a
/// folder's times change when others use them.
fn listing(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let about = std::fs::symlink_metadata(&path)?;
            if about.is_dir() {
                open.push(path.clone());
            }
            let kind = about.file_type();
            let written = if kind.is_file() {
                format!("{} {:?}", about.len(), about.modified()?)
            } else {
                String::new()
            };
            found.insert(path.display().to_string(), format!("{kind:?} {written}"));
        }
    }
    Ok(found)
}

/// Faults of memory pages by children that ended: any program that was ever run and waited
/// for leaves some.
fn faults_of_children(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = text.rsplit_once(')').context("no stat")?.1;
    let faults = fields.split_whitespace().nth(8).context("no field")?;
    Ok(faults.parse()?)
}

fn has_run_nothing(program: &Program) -> Result<()> {
    assert_eq!(faults_of_children(program.pid())?, 0, "it ran another program");
    assert!(descendants(program.pid()).is_empty(), "another program runs");
    Ok(())
}

#[test]
fn a_program_that_was_run_leaves_a_trace() -> Result<()> {
    // What the tests below rely on.
    let script = "true & wait; /bin/true; read line";
    let mut shell = std::process::Command::new("sh")
        .args(["-c", script])
        .stdin(std::process::Stdio::piped())
        .spawn()?;
    let seen = e2e::wait::wait_blocking(SOON, || {
        faults_of_children(shell.id()).is_ok_and(|faults| faults > 0)
    });
    shell.kill()?;
    shell.wait()?;
    assert!(seen);
    Ok(())
}

#[tokio::test]
async fn beside_a_running_pm2_nothing_is_started_and_nothing_written() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![
        json!({"name": "web", "script": "web.js"}),
        json!({"name": "stopped", "script": "web.js"}),
    ])
    .await?;
    pm2.cli(&["stop", "stopped"]).await?;
    wait_until("web has said all it says", SOON, async || {
        let log = std::fs::read_to_string(pm2.home().join("logs/web-out.log")).ok()?;
        log.contains("listening on").then_some(())
    })
    .await?;
    let (files, processes) = (listing(pm2.home())?, pm2.running());

    let exporter = scene::exporter(pm2.home()).await?;
    let client = exporter.client();
    wait_for_instances(client, "web", Status::Online, 1).await?;
    for _ in 0..50 {
        for path in ["/", "/metrics", "/api/state", "/api/processes", "/api/journal", "/api/slots"]
        {
            client.get(path).await?.ok()?;
        }
    }
    assert_eq!(listing(pm2.home())?, files);
    assert_eq!(pm2.running(), processes);
    has_run_nothing(&exporter)
}

#[tokio::test]
async fn without_a_daemon_a_thousand_scrapes_start_nothing_and_make_nothing() -> Result<()> {
    let folder = Folder::new()?;
    let empty = folder.join("empty");
    std::fs::create_dir(&empty)?;
    for home in [empty, folder.join("missing")] {
        let before = listing(folder.path())?;
        let exporter = scene::exporter(&home).await?;
        let start = Stopwatch::start(&[exporter.pid()]);
        let page = metrics(exporter.client()).await?;
        assert_eq!(page.value("pm2_up", &[])?, 0.0);
        assert!(start.elapsed() < Duration::from_secs(1));
        for _ in 0..1_000 {
            exporter.client().get("/metrics").await?.ok()?;
        }
        assert_eq!(listing(folder.path())?, before);
        has_run_nothing(&exporter)?;

        let state: wire::State = exporter.client().json("/api/state").await?;
        let error = state.pm2.error.context("no reason")?;
        assert!(!state.pm2.up && error.contains(&home.display().to_string()), "{error}");
        let answer = exporter.client().get("/readyz").await?;
        assert_eq!(answer.status, 503, "{}", answer.text);
        assert!(answer.text.contains(&home.display().to_string()), "{}", answer.text);
    }
    Ok(())
}

#[tokio::test]
async fn after_the_daemon_is_gone_none_is_started() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({"name": "web", "script": "web.js"})]).await?;
    let exporter = scene::exporter(pm2.home()).await?;
    wait_for_instances(exporter.client(), "web", Status::Online, 1).await?;
    pm2.kill_daemon()?;
    let gone = Stopwatch::start(&[exporter.pid()]);
    wait_until("pm2_up is 0", SOON, async || {
        let page = metrics(exporter.client()).await.ok()?;
        (page.value("pm2_up", &[]).ok()? == 0.0).then_some(())
    })
    .await?;
    assert!(gone.elapsed() < Duration::from_secs(1), "after {:?}", gone.elapsed());
    for _ in 0..100 {
        let page = metrics(exporter.client()).await?;
        assert!(!page.has("pm2_process_up", &[("name", "web")]), "shown though it is gone");
    }
    assert!(marked(pm2.mark()).is_empty(), "a daemon was started");
    has_run_nothing(&exporter)
}

#[tokio::test]
async fn commands_run_no_program_either() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({"name": "web", "script": "web.js"})]).await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    wait_for_instances(&exporter.read, "web", Status::Online, 1).await?;
    for action in ["stop", "start", "restart", "reload", "reset", "delete"] {
        let path = format!("/api/processes/web/{action}?wait=30s");
        scene::succeeded(&exporter.control.post(&path).await?)?;
    }
    has_run_nothing(&exporter.program)
}

#[tokio::test]
async fn a_pm2_home_that_may_not_be_read_is_told_and_not_taken_for_empty() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({"name": "web", "script": "web.js"})]).await?;
    // As another user than the one whose PM2 it is.
    let Some(launch) = Launch::exporter()?.pm2_home(pm2.home()).as_nobody()? else {
        eprintln!("only root can become another user: permissions are taken away instead");
        return without_permission(&pm2).await;
    };
    let exporter = launch.start().await?;
    is_told(&exporter, pm2.home()).await
}

async fn without_permission(pm2: &Pm2) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(pm2.home(), std::fs::Permissions::from_mode(0o000))?;
    let exporter = scene::exporter(pm2.home()).await?;
    let told = is_told(&exporter, pm2.home()).await;
    std::fs::set_permissions(pm2.home(), std::fs::Permissions::from_mode(0o700))?;
    told
}

async fn is_told(exporter: &Program, home: &Path) -> Result<()> {
    let client = exporter.client();
    let state: wire::State = client.json("/api/state").await?;
    let error = state.pm2.error.context("no reason")?;
    assert!(!state.pm2.up);
    assert!(error.contains("not permitted"), "{error}");
    assert!(error.contains(&home.display().to_string()), "{error}");
    assert_eq!(metrics(client).await?.value("pm2_up", &[])?, 0.0);
    let answer = client.get("/readyz").await?;
    assert!(answer.status == 503 && answer.text.contains("not permitted"), "{}", answer.text);
    Ok(())
}
