//! A fleet that changes: servers added over HTTP and retired, commands for a server that is away and
//! for many at once, over restarts of real exporters of a real PM2.

use anyhow::{Context, Result};
use e2e::scene::{self, Server, Watcher};
use e2e::{Answer, Pm2, SOON, wait_until};
use reqwest::Method;
use serde_json::{Value, json};

async fn machine() -> Result<(Pm2, scene::Guarded)> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({"name": "web", "script": "web.js"})]).await?;
    pm2.wait_for("web", "online", 1).await?;
    // Its journal outlives the exporter.
    let exporter = scene::guarded_exporter(pm2.home(), "state_dir = \"state\"").await?;
    Ok((pm2, exporter))
}

async fn send(poller: &Watcher, method: Method, path: &str, body: &Value) -> Result<Answer> {
    poller.admin.send(poller.admin.request(method, path).json(body)).await
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["kind"].as_str()).collect()
}

#[tokio::test]
async fn servers_come_are_commanded_go_away_and_come_back() -> Result<()> {
    let ((one, first), (two, second)) = (machine().await?, machine().await?);
    let poller = scene::poller(&[Server::of("vm1", &first)], "").await?;
    let new = json!({
        "id": "vm2", "url": second.program.launch().base(), "token": second.token, "group": "eu",
    });
    let added = send(&poller, Method::POST, "/api/servers", &new).await?;
    assert_eq!(added.status, 201, "{}", added.text);
    assert!(!added.text.contains(&second.token));
    for server in ["vm1", "vm2"] {
        poller.wait_for(server, "online").await?;
    }

    let before = (one.pid_of("web")?, two.pid_of("web")?);
    let body = json!({"select": {"app": "web"}, "action": "restart", "settle": "1s"});
    let answer = send(&poller, Method::POST, "/api/commands?wait=60s", &body).await?;
    let selection: Value = answer.json()?;
    assert_eq!(selection["status"], "succeeded", "{selection}");
    let after = (one.pid_of("web")?, two.pid_of("web")?);
    assert!(before.0 != after.0 && before.1 != after.1, "{before:?} {after:?}");
    let path = format!("/api/commands/{}", selection["id"].as_str().context("no id")?);
    assert_eq!(poller.admin.json::<Value>(&path).await?, selection);

    // Away, and back with the same journal.
    let launch = second.program.launch();
    second.program.stop(SOON).await?;
    poller.wait_for("vm2", "offline").await?;
    let answer = poller.admin.post("/api/commands/vm2/apps/web/restart?queue=10m").await?;
    let queued: Value = answer.json()?;
    assert_eq!((answer.status, &queued["status"]), (202, &json!("queued")), "{queued}");
    let back = launch.clone().start().await?;
    let path = format!("/api/commands/{}", queued["id"].as_str().context("no id")?);
    let record = wait_until("it is sent and ends", SOON, async || {
        let record: Value = poller.admin.json(&path).await.ok()?;
        record["finished_at"].is_string().then_some(record)
    })
    .await?;
    assert_eq!(record["status"], "succeeded", "{record}");
    assert_ne!(two.pid_of("web")?, after.1);
    // And once more, without anybody noticing.
    back.stop(SOON).await?;
    let _back = launch.start().await?;
    wait_until("the second restart is told", SOON, async || {
        let events = poller.events("vm2").await.ok()?;
        let starts = kinds(&events).iter().filter(|kind| **kind == "exporter_started").count();
        (starts == 3).then_some(())
    })
    .await?;
    let events = poller.events("vm2").await?;
    for kind in ["journal_reset", "journal_lost"] {
        assert!(!kinds(&events).contains(&kind), "{events:?}");
    }

    let gone = send(&poller, Method::DELETE, "/api/servers/vm2", &Value::Null).await?;
    assert_eq!(gone.status, 204, "{}", gone.text);
    let retired: Value = poller.admin.json("/api/servers?retired=true").await?;
    assert_eq!(retired["servers"][0]["id"], "vm2", "{retired}");
    poller.admin.json::<Value>("/api/servers/vm2?retired=true").await?;
    let history: Value =
        poller.admin.json("/api/servers/vm2/apps/web/metrics?metric=memory&from=10m").await?;
    assert_eq!(history["series"][0]["metric"], "memory", "{history}");
    Ok(())
}
