//! A secret planted wherever secrets are found: it appears nowhere.

use std::path::Path;

use anyhow::{Context, Result};
use e2e::scene::{self, Server, wait_for_instances};
use e2e::{Client, Folder, Pm2, SOON, wait_until};
use serde_json::json;
use wire::Status;

/// Told apart, so that a find says where it came from.
const CANARIES: [&str; 5] = [
    "canary-environment",
    "canary-argument",
    "canary-repository",
    "canary-node",
    "canary-database",
];

fn clean(place: &str, text: &str) -> Result<()> {
    for canary in CANARIES {
        if let Some(at) = text.find(canary) {
            let around: String = text[..at].chars().rev().take(80).collect();
            let around: String = around.chars().rev().collect();
            anyhow::bail!("{canary} in {place} after {around:?}");
        }
    }
    Ok(())
}

async fn clean_answers(client: &Client, paths: &[&str]) -> Result<()> {
    for path in paths {
        for accept in ["*/*", "application/openmetrics-text;version=1.0.0", "application/json"] {
            let request = client.request(reqwest::Method::GET, path).header("accept", accept);
            let answer = client.send(request).await?;
            assert_ne!(answer.status, 401, "{path} was not shown at all");
            clean(path, &answer.text)?;
            clean(path, &format!("{:?}", answer.headers))?;
        }
    }
    Ok(())
}

fn clean_files(folder: &Path) -> Result<usize> {
    let mut checked = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            checked += clean_files(&path)?;
        } else {
            let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
            clean(&path.display().to_string(), &text)?;
            checked += 1;
        }
    }
    Ok(checked)
}

/// A git repository whose remote's address holds a password, with an application in it.
fn repository() -> Result<Folder> {
    let folder = Folder::new()?;
    std::fs::copy(e2e::setup::app("secret.js"), folder.join("secret.js"))?;
    let remote = "https://deploy:canary-repository@127.0.0.1/team/app.git";
    for arguments in [
        vec!["init", "--quiet", "--initial-branch=main"],
        vec!["remote", "add", "origin", remote],
        vec!["add", "secret.js"],
        vec!["-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "a"],
    ] {
        let status = std::process::Command::new("git")
            .args(&arguments)
            .current_dir(folder.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .status()
            .context("git is needed")?;
        anyhow::ensure!(status.success(), "git {arguments:?}");
    }
    Ok(folder)
}

#[tokio::test]
async fn a_planted_secret_appears_nowhere() -> Result<()> {
    let repository = repository()?;
    let pm2 = Pm2::start_with(&[("PM2_ENABLE_GIT_PARSING", "true")]).await?;
    pm2.start_apps(vec![json!({
        "name": "keeper",
        "script": repository.join("secret.js").display().to_string(),
        "cwd": repository.path().display().to_string(),
        "args": ["--password", "canary-argument"],
        "node_args": ["--title=canary-node"],
        "env": {
            "API_KEY": "canary-environment",
            "DATABASE_URL": "postgres://app:canary-database@127.0.0.1/app",
        },
    })])
    .await?;
    // PM2 itself has all of it: else this test shows nothing. PM2 6 reads no repository.
    let of_repository = |canary: &&str| *canary == "canary-repository";
    let six = e2e::setup::pm2_daemon_version()?.starts_with("6.");
    let told_by_pm2: Vec<&str> =
        CANARIES.into_iter().filter(|canary| !(six && of_repository(canary))).collect();
    wait_until("PM2 has read the repository", SOON, async || {
        let told = serde_json::to_string(&pm2.processes().ok()?).ok()?;
        told_by_pm2.iter().all(|canary| told.contains(canary)).then_some(())
    })
    .await?;

    let more = "log_level = \"trace\"\nsample_interval = \"1s\"";
    let exporter = scene::guarded_exporter(pm2.home(), more).await?;
    let servers = [Server::of("vm1", &exporter)];
    let poller = scene::poller(&servers, "log_level = \"trace\"").await?;
    wait_for_instances(&exporter.read, "keeper", Status::Online, 1).await?;
    poller.wait_for("vm1", "online").await?;

    // Make it do whatever puts a process into an answer or a log line.
    for action in ["restart", "reload", "reset", "stop", "start"] {
        let path = format!("/api/commands/vm1/apps/keeper/{action}?wait=30s");
        scene::succeeded(&poller.admin.post(&path).await?)?;
    }
    e2e::process::signal(pm2.pid_of("keeper")?, rustix::process::Signal::KILL);
    wait_until("the end of it is told", SOON, async || {
        let events = poller.events("vm1").await.ok()?;
        events.iter().any(|event| event["signal"] == "SIGKILL").then_some(())
    })
    .await?;
    let body = json!({"target": {"app": "keeper"}, "action": "restart",
                      "arguments": {"password": "canary-argument"}});
    let answer = exporter.control.put("/api/commands/with-arguments?wait=30s", &body).await?;
    clean("PUT /api/commands", &answer.text)?;

    let commands: serde_json::Value = poller.admin.json("/api/commands").await?;
    let id = commands["commands"][0]["id"].as_str().context("no command")?.to_owned();
    clean_answers(
        &exporter.control,
        &[
            "/",
            "/metrics",
            "/healthz",
            "/readyz",
            "/api/state",
            "/api/processes",
            "/api/processes/keeper",
            "/api/journal?after=0&limit=10000",
            "/api/slots",
            "/api/commands/with-arguments",
            &format!("/api/commands/{id}"),
            "/nowhere",
            "/api/processes/nobody",
            "/api/journal?after=canary",
        ],
    )
    .await?;
    clean_answers(
        &poller.admin,
        &[
            "/",
            "/servers/vm1",
            "/servers/vm1/apps/keeper",
            "/events",
            "/commands",
            "/login",
            "/metrics",
            "/healthz",
            "/readyz",
            "/sd/prometheus",
            "/api/servers",
            "/api/servers/vm1",
            "/api/servers/vm1/apps",
            "/api/servers/vm1/apps/keeper",
            "/api/servers/vm1/slots",
            "/api/servers/vm1/apps/keeper/metrics?metric=memory",
            "/api/events?limit=1000",
            "/api/commands",
            &format!("/api/commands/{id}"),
            "/api/audit",
            "/api/tokens",
            "/api/me",
            "/api/openapi.json",
        ],
    )
    .await?;

    for (name, program) in [("exporter", exporter.program), ("poller", poller.program)] {
        let launch = program.launch();
        let ended = program.stop(SOON).await?;
        assert!(!ended.stderr.is_empty(), "the {name} logs nothing, so nothing is shown here");
        clean(&format!("the log of the {name}"), &ended.stderr)?;
        clean(&format!("the output of the {name}"), &ended.stdout)?;
        let files = clean_files(launch.folder().path())?;
        assert!(files > 0, "no file of the {name} was checked");
    }
    Ok(())
}

#[tokio::test]
async fn tokens_are_not_told_either() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let exporter = scene::guarded_exporter(pm2.home(), "log_level = \"trace\"").await?;
    let servers = [Server::of("vm1", &exporter)];
    let poller = scene::poller(&servers, "log_level = \"trace\"").await?;
    poller.wait_for("vm1", "online").await?;
    for path in ["/api/servers", "/api/servers/vm1", "/sd/prometheus", "/metrics", "/", "/api/me"] {
        let answer = poller.admin.get(path).await?;
        for token in [&exporter.token, &poller.token] {
            assert!(!answer.text.contains(token.as_str()), "a token in {path}");
        }
    }
    let wrong = exporter.program.client().with_token("pm2x_wrongwrongwrongwrongwrong");
    let answer = wrong.get("/api/state").await?;
    answer.problem(401, "unauthorized")?;
    assert!(!answer.text.contains("wrongwrong"), "{}", answer.text);
    let launch = poller.program.launch();
    let (exporters, pollers) = (exporter.token.clone(), poller.token.clone());
    let ended = [exporter.program.stop(SOON).await?, poller.program.stop(SOON).await?];
    let database = launch.folder().join("poller.db");
    let database = String::from_utf8_lossy(&std::fs::read(database)?).into_owned();
    for token in [exporters.as_str(), &pollers, "wrongwrong"] {
        assert!(!database.contains(token), "a token in the database");
        for ended in &ended {
            assert!(!ended.stderr.contains(token), "a token in a log");
        }
    }
    Ok(())
}
