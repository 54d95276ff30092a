//! What counts as a restart, and that series go on whoever starts what anew.

use std::collections::BTreeSet;

use anyhow::Result;
use e2e::scene::{self, instances, wait_for_instances};
use e2e::{Client, Pm2, Port, SOON, wait_until};
use reqwest::Method;
use serde_json::json;
use wire::{EventKind, RestartCause, RestartCounts, Severity, Status};

/// Kind, exit code and severity of every event of an app.
async fn events(client: &Client, app: &str) -> Result<Vec<wire::Event>> {
    let page: wire::JournalPage = client.json("/api/journal?after=0").await?;
    let events = page.entries.into_iter().filter_map(|entry| match entry.record {
        wire::Record::Event(event) => Some(event),
        _ => None,
    });
    Ok(events.filter(|event| event.app.as_deref() == Some(app)).collect())
}

#[tokio::test]
async fn a_job_that_runs_on_a_schedule_is_no_crash_loop() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let exporter = scene::exporter(pm2.home()).await?;
    let client = exporter.client();
    pm2.start_apps(vec![json!({
        "name": "job", "script": "job.js", "autorestart": false, "cron_restart": "*/2 * * * * *",
    })])
    .await?;
    let exits = wait_until("three runs", SOON, async || {
        let mut events = events(client, "job").await.ok()?;
        events.retain(|event| event.kind == EventKind::EXIT);
        // PM2 ends one whose time comes while it runs, and starts it again.
        events.retain(|event| event.cause != Some(RestartCause::Manual));
        (events.len() >= 3).then_some(events)
    })
    .await?;
    for exit in exits {
        let told = (exit.exit_code, exit.cause, exit.severity);
        assert_eq!(told, (Some(0), None, Severity::Info), "{exit:?}");
    }
    let restarts = instances(client, "job").await?[0].restarts;
    assert_eq!(restarts.total(), restarts.manual, "{restarts:?}");
    Ok(())
}

#[tokio::test]
async fn a_start_by_hand_of_what_pm2_gave_up_on_is_no_crash() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let exporter = scene::exporter(pm2.home()).await?;
    let client = exporter.client();
    pm2.start_apps(vec![json!({
        "name": "app", "script": "crash-loop.js", "max_restarts": 2, "min_uptime": 60_000,
    })])
    .await?;
    wait_for_instances(client, "app", Status::Errored, 1).await?;
    pm2.cli(&["restart", "app"]).await?;
    wait_until("it is given up again", SOON, async || {
        let events = events(client, "app").await.ok()?;
        let errored = events.iter().filter(|event| event.kind == EventKind::ERRORED);
        (errored.count() == 2).then_some(())
    })
    .await?;
    // PM2 itself does not count the start by hand either.
    let restarts = instances(client, "app").await?[0].restarts;
    assert_eq!(restarts, RestartCounts { crash: restarts.crash, ..Default::default() });
    assert_eq!(pm2.processes_of("app")?[0]["pm2_env"]["restart_time"], restarts.crash);
    Ok(())
}

#[tokio::test]
async fn a_deployment_is_counted_as_one() -> Result<()> {
    let pm2 = Pm2::start().await?;
    // Where nothing else runs, PM2 gives the number of the old process to the new one.
    pm2.start_apps(vec![json!({"name": "web", "script": "web.js"})]).await?;
    let port = Port::free()?;
    let (exporter, token) = scene::exporter_with_slot(pm2.home(), &port).await?;
    let client = exporter.client().with_token(token);
    let repository = scene::repository("")?;
    let body = json!({"repository": format!("file://{}", repository.path().display())});
    let mut counted = Vec::new();
    for _ in 0..2 {
        let request = client.request(Method::POST, "/api/slots/a/deploy?wait=60s").json(&body);
        client.send(request).await?.ok()?;
        counted.push(wait_for_instances(&client, "slot-a", Status::Online, 1).await?[0].restarts);
    }
    let expected = RestartCounts { deploy: counted[0].deploy + 1, ..Default::default() };
    assert_eq!(counted[1], expected, "{counted:?}");
    Ok(())
}

#[tokio::test]
async fn what_is_resurrected_was_restarted_once() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let port = Port::free()?;
    let env = json!({"PORT": port.number().to_string()});
    pm2.start_apps(vec![
        json!({"name": "many", "script": "cluster.js", "instances": 2, "env": env}),
        json!({"name": "one", "script": "web.js"}),
        json!({"name": "last", "script": "web.js"}),
    ])
    .await?;
    let exporter = scene::exporter(pm2.home()).await?;
    let client = exporter.client();
    wait_for_instances(client, "many", Status::Online, 2).await?;
    pm2.cli(&["save"]).await?;
    pm2.cli(&["kill"]).await?;
    pm2.cli(&["resurrect"]).await?;
    let all = async || {
        let list: wire::ProcessList = client.json("/api/processes").await.ok()?;
        Some(list.processes)
    };
    wait_until("all is back", SOON, async || {
        let all = all().await?;
        let back = all.iter().filter(|process| process.restarts.total() > 0).count();
        (back == 4).then_some(())
    })
    .await?;
    // What the bus has to tell of the others was told when this one ends.
    pm2.cli(&["delete", "last"]).await?;
    let found = wait_until("the last is gone", SOON, async || {
        let all = all().await?;
        (all.len() == 3).then_some(all)
    })
    .await?;
    let expected = RestartCounts { unknown: 1, ..Default::default() };
    assert!(found.iter().all(|process| process.restarts == expected), "{found:?}");
    Ok(())
}

#[tokio::test]
async fn series_go_on_over_stop_delete_and_start() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let port = Port::free()?;
    let env = json!({"PORT": port.number().to_string()});
    let apps = [
        json!({"name": "many", "script": "cluster.js", "instances": 2, "env": env}),
        json!({"name": "one", "script": "web.js"}),
        json!({"name": "failing", "script": "crash-loop.js", "max_restarts": 1,
               "min_uptime": 60_000}),
    ];
    pm2.start_apps(vec![json!({"name": "other", "script": "web.js"})]).await?;
    pm2.start_apps(apps.to_vec()).await?;
    let exporter = scene::exporter(pm2.home()).await?;
    let client = exporter.client();
    let mut numbers = BTreeSet::new();
    for round in 0..3 {
        wait_for_instances(client, "many", Status::Online, 2).await?;
        wait_for_instances(client, "one", Status::Online, 1).await?;
        wait_for_instances(client, "failing", Status::Errored, 1).await?;
        let list: wire::ProcessList = client.json("/api/processes").await?;
        let found: Vec<String> =
            list.processes.iter().map(|process| process.instance.to_string()).collect();
        assert_eq!(found.len(), 5, "round {round}: {found:?}");
        for process in &list.processes {
            assert!(numbers.insert(process.pm_id) || &*process.instance.name == "other");
            assert!(
                process.instance.instance_id < 1 + u32::from(&*process.instance.name == "many")
            );
            assert_eq!(process.restarts.unknown, 0, "round {round}: {process:?}");
        }
        // Whether it is deleted at once or after it was stopped.
        let pm2_does: &[&str] = if round == 0 { &["delete"] } else { &["stop", "delete"] };
        for word in pm2_does {
            pm2.cli(&[word, "many", "one", "failing"]).await?;
        }
        pm2.start_apps(apps.to_vec()).await?;
    }
    Ok(())
}
