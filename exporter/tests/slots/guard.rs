//! Slots against those who do not know of them, and a daemon that hangs.

use std::time::{Duration, Instant};

use e2e::wait_until;
use serde_json::{Value, json};

use crate::stage::{QUICK, Repo, Stage};
use e2e::SOON;

#[tokio::test]
async fn a_slots_process_is_not_taken_away_and_comes_back_when_it_was() {
    let stage = Stage::new().await;
    stage.deployed("a", &Repo::app("kept")).await;
    // What would leave the slot without its process says what to ask for instead.
    for (action, body, instead) in [
        ("stop", json!({}), "/api/slots/a/stop"),
        ("delete", json!({}), "/api/slots/a/stop"),
        ("scale", json!({"instances": 2}), "exactly one process"),
        ("env", json!({"env": {"A": "1"}}), "/api/slots/a/env"),
    ] {
        let answer = stage.post(&format!("/api/processes/slot-a/{action}"), &body).await;
        assert_eq!(answer.status, 409, "{action}: {}", answer.text);
        assert!(answer.text.contains(instead), "{action}: {}", answer.text);
    }
    let command = json!({"target": {"app": "slot-a"}, "action": "delete"});
    let answer = stage.client.put("/api/commands/by-app", &command).await.unwrap();
    assert_eq!(answer.status, 409, "{}", answer.text);
    let command = json!({"target": {"slot": "a"}, "action": "delete"});
    let answer = stage.client.put("/api/commands/by-slot", &command).await.unwrap();
    assert_eq!(answer.status, 409, "{}", answer.text);
    // What leaves it what it is works as for any app.
    let restarted = stage.post("/api/processes/slot-a/restart?wait=150s", &json!({})).await;
    assert!(restarted.text.contains("succeeded"), "{}", restarted.text);

    // By hand: the one gets its application back, the other its placeholder.
    stage.pm2.cli(&["delete", "slot-a", "slot-b"]).await.unwrap();
    stage.at_rest("a").await;
    stage.at_rest("b").await;
    wait_until("both answer", SOON, async || {
        let a = stage.get("a", "/").await?;
        let b = stage.get("b", "/health").await?;
        (a == "kept" && b.contains("placeholder")).then_some(())
    })
    .await
    .unwrap();
    // A second process of its name goes, and the one that serves stays.
    let pid = stage.pm2.pid_of("slot-a").unwrap();
    let script = stage.pm2.folder().write("other.js", "setInterval(() => {}, 1000)").unwrap();
    let script = script.display().to_string();
    stage.pm2.cli(&["start", &script, "--name", "slot-a", "--force"]).await.unwrap();
    let told = async |what: &str| {
        wait_until(what, SOON, async || {
            let journal = stage.client.get("/api/journal?limit=1000").await.ok()?.text;
            journal.contains(what).then_some(())
        })
        .await
        .unwrap();
    };
    told("it had 2 processes: the one that serves stays").await;
    stage.at_rest("a").await;
    assert_eq!(stage.pm2.pid_of("slot-a").unwrap(), pid);
    told("its process was gone: the placeholder was started again").await;
    // What was stopped by hand stays stopped.
    stage.pm2.cli(&["stop", "slot-b"]).await.unwrap();
    stage.deployed("a", &Repo::app("new")).await;
    assert_eq!(stage.pm2.processes_of("slot-b").unwrap()[0]["pm2_env"]["status"], "stopped");
}

#[tokio::test]
async fn a_daemon_that_hangs_ends_the_wait_and_the_change_goes_on_when_it_is_back() {
    let stage = Stage::with(&format!("{QUICK}daemon_wait = \"1s\"\n")).await;
    stage.deployed("a", &Repo::app("old")).await;
    let repo = Repo::app("new");
    let daemon = stage.pm2.daemon().unwrap();
    // It hangs while the release is built, so that the switch finds it so.
    let hangs = stage.pm2.folder().join("hangs");
    let build = format!(
        "process.kill({daemon}, 'SIGSTOP'); require('fs').writeFileSync({:?}, '')",
        hangs.display().to_string()
    );
    let id = "hung";
    let command = json!({"target": {"slot": "a"}, "action": "deploy",
        "deploy": {"repository": repo.url(), "build": ["node", "-e", build]}});
    stage.client.put(&format!("/api/commands/{id}"), &command).await.unwrap();
    let began = Instant::now();
    let record: Value = wait_until("the wait ends", SOON, async || {
        let record: Value = stage.client.json(&format!("/api/commands/{id}")).await.ok()?;
        (record["status"] == "unknown").then_some(record)
    })
    .await
    .unwrap();
    assert!(hangs.exists() && began.elapsed() > Duration::from_secs(1));
    let error = record["error"].as_str().unwrap();
    assert!(error.contains("once PM2 answers"), "{error}");
    // Nobody waits behind it: others are told at once.
    let restart = stage.post("/api/slots/a/restart?wait=150s", &json!({})).await;
    assert!(restart.text.contains("failed"), "{}", restart.text);
    stage.pm2.thaw().unwrap();
    let path = format!("/api/slots/a/deployments/{id}");
    let ended: Value = wait_until("it comes to an end", SOON, async || {
        let value: Value = stage.client.json(&path).await.ok()?;
        matches!(value["status"].as_str(), Some("healthy" | "failed")).then_some(value)
    })
    .await
    .unwrap();
    stage.at_rest("a").await;
    let wanted = if ended["status"] == "healthy" { "new" } else { "old" };
    wait_until("it answers", SOON, async || (stage.get("a", "/").await? == wanted).then_some(()))
        .await
        .unwrap();
    // And it can be changed again.
    let restart = stage.post("/api/slots/a/restart?wait=150s", &json!({})).await;
    assert!(restart.text.contains("succeeded"), "{}", restart.text);
}
