use std::time::Duration;

use e2e::wait_until;
use serde_json::{Value, json};

use crate::stage::{PACKAGE, Repo, Stage, server};
use e2e::SOON;

/// What the exporter is doing when it is killed, and what must run afterwards.
async fn killed_while(stage: &mut Stage, repo: &Repo, status: &str, delay: Duration, round: u32) {
    let id = format!("killed-{status}-{round}");
    let command = json!({"target": {"slot": "a"}, "action": "deploy",
                         "deploy": {"repository": repo.url()}});
    let before = stage.get("a", "/").await.unwrap();
    stage.client.put(&format!("/api/commands/{id}"), &command).await.unwrap();
    let path = format!("/api/slots/a/deployments/{id}");
    let reached: Value = wait_until(status, SOON, async || {
        let value: Value = stage.client.json(&path).await.ok()?;
        (value["status"] == status || value["status"] == "healthy").then_some(value)
    })
    .await
    .unwrap();
    tokio::time::sleep(delay).await;
    stage.kill();
    stage.serve().await;
    let ended: Value = wait_until("it comes to an end", SOON, async || {
        let value: Value = stage.client.json(&path).await.ok()?;
        matches!(value["status"].as_str(), Some("healthy" | "failed")).then_some(value)
    })
    .await
    .unwrap();
    stage.at_rest("a").await;
    let now =
        wait_until("the slot answers", SOON, async || stage.get("a", "/").await).await.unwrap();
    let shown = format!("{status} {delay:?}: {reached:#} {ended:#}");
    if ended["status"] == "healthy" {
        assert_eq!(now, "new", "{shown}");
    } else {
        assert_eq!(now, before, "{shown}");
        let error = ended["error"].as_str().unwrap();
        assert!(error.contains("cut off") || error.contains("before its turn"), "{shown}");
    }
    wait_until("the slot is told to be deployed", SOON, async || {
        (stage.slot("a").await["type"] == "deployed").then_some(())
    })
    .await
    .unwrap();
}

/// An application that takes its time at every step.
fn slow(text: &str) -> Repo {
    let scripts = r#"{"name":"x","scripts":{"preinstall":"node -e 'setTimeout(()=>{},400)'","build":"node -e 'setTimeout(()=>{},400)'","start":"node server.js"}}"#;
    let server = format!("setTimeout(() => {{ {} }}, 300)", server(text));
    Repo::new(&[("package.json", scripts), ("server.js", &server)])
}

#[tokio::test]
async fn a_crash_of_the_exporter_at_any_step_leaves_the_former_or_the_new_release() {
    let mut stage = Stage::new().await;
    stage.deployed("a", &Repo::app("old")).await;
    let repo = slow("new");
    // The long form: as many rounds as the variable says, each a little later in every step.
    let rounds =
        std::env::var("PM2_FLEET_LONG").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for round in 0..rounds {
        for (number, (status, delay)) in [
            ("queued", 0),
            ("cloning", 0),
            ("installing", 100),
            ("building", 100),
            ("probing", 100),
            ("switching", 0),
            ("switching", 60),
            ("switching", 150),
            ("switching", 350),
            ("switching", 800),
        ]
        .into_iter()
        .enumerate()
        {
            let delay = Duration::from_millis(delay + u64::from(round) * 17);
            killed_while(&mut stage, &repo, status, delay, round * 100 + number as u32).await;
            // Always from the old one.
            if stage.get("a", "/").await.unwrap() == "new" {
                let back = stage.post("/api/slots/a/rollback?wait=150s", &json!({})).await;
                assert!(back.text.contains("succeeded"), "{}", back.text);
            }
        }
    }
    let journal = stage.client.get("/api/journal").await.unwrap();
    assert!(journal.text.contains("slot_recovered"), "{}", journal.text);
}

#[tokio::test]
async fn a_stop_of_the_exporter_and_a_deadline_end_what_was_started() {
    let mut stage = Stage::new().await;
    stage.deployed("a", &Repo::app("old")).await;
    let build = r#"{"name":"x","scripts":{"build":"node -e 'setInterval(()=>{},1000)'","start":"node server.js"}}"#;
    let repo = Repo::new(&[("package.json", build), ("server.js", &server("new"))]);
    let failed = stage.fails("a", json!({"repository": repo.url(), "timeout": "2s"})).await;
    assert!(failed["error"].as_str().unwrap().contains("the time allowed was over"), "{failed:#}");
    let body = json!({"repository": repo.url()});
    let taken = stage.post("/api/slots/a/deploy", &body).await;
    let path = format!(
        "/api/slots/a/deployments/{}",
        taken.json::<Value>().unwrap()["id"].as_str().unwrap()
    );
    wait_until("it builds", SOON, async || {
        let value: Value = stage.client.json(&path).await.ok()?;
        (value["status"] == "building").then_some(())
    })
    .await
    .unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(stage.terminate(), Some(0));
    stage.leaves_nothing_behind().await;
    stage.serve().await;
    let value: Value = wait_until("it is told", SOON, async || {
        let value: Value = stage.client.json(&path).await.ok()?;
        (value["status"] == "failed").then_some(value)
    })
    .await
    .unwrap();
    assert!(value["error"].as_str().unwrap().contains("cut off while building"), "{value:#}");
    assert_eq!(stage.get("a", "/").await.unwrap(), "old");
    stage.at_rest("a").await;
}

#[tokio::test]
async fn a_crash_of_the_daemon_while_switching_is_mended_when_it_is_back() {
    let stage = Stage::new().await;
    stage.deployed("a", &Repo::app("old")).await;
    let port = stage.ports["a"];
    // Slow only on the slot's port, so that the daemon dies between switch and check.
    let text = format!(
        "setTimeout(() => {{ {} }}, process.env.PORT === '{port}' ? 1500 : 0)",
        server("new")
    );
    let repo = Repo::new(&[("package.json", PACKAGE), ("server.js", &text)]);
    let taken = stage.post("/api/slots/a/deploy", &json!({"repository": repo.url()})).await;
    let id = taken.json::<Value>().unwrap()["id"].as_str().unwrap().to_owned();
    let path = format!("/api/slots/a/deployments/{id}");
    wait_until("it switches", SOON, async || {
        let value: Value = stage.client.json(&path).await.ok()?;
        (value["status"] == "switching").then_some(())
    })
    .await
    .unwrap();
    stage.pm2.kill_daemon().unwrap();
    let (out, _) = stage.slots(&["up"]);
    let ended: Value = wait_until("it comes to an end", SOON, async || {
        let value: Value = stage.client.json(&path).await.ok()?;
        matches!(value["status"].as_str(), Some("healthy" | "failed")).then_some(value)
    })
    .await
    .unwrap();
    let (again, well) = stage.slots(&["up"]);
    assert!(well, "{out}{again}");
    stage.at_rest("a").await;
    stage.at_rest("b").await;
    let text = stage.get("a", "/").await.unwrap();
    let wanted = if ended["status"] == "healthy" { "new" } else { "old" };
    assert_eq!(text, wanted, "{ended:#}");
}
