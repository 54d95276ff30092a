//! The pages that people look at, and the poller's JSON behind them.

use anyhow::{Context, Result};
use e2e::scene::{self, Server, wait_for_instances};
use e2e::{Pm2, Port, SOON, wait_until};
use serde_json::{Value, json};
use wire::{JournalPage, Record, Status, Time};

#[tokio::test]
async fn the_pages_show_what_runs_without_javascript() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let hostile = "<script>alert(1)</script>";
    pm2.start_apps(vec![
        json!({"name": "web", "script": "web.js"}),
        json!({"name": hostile, "script": "web.js"}),
    ])
    .await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    wait_for_instances(&exporter.read, "web", Status::Online, 1).await?;
    let nowhere = Port::free()?;
    let servers = [
        Server::of("vm1", &exporter),
        Server::open("vm2", format!("http://{}", nowhere.address())),
    ];
    let poller = scene::poller(&servers, "anonymous_read = true").await?;
    poller.wait_for("vm1", "online").await?;
    poller.wait_for("vm2", "offline").await?;
    scene::succeeded(&poller.admin.post("/api/commands/vm1/apps/web/restart?wait=30s").await?)?;

    let anybody = poller.program.client();
    for (path, words) in [
        ("/", &["vm1", "vm2"][..]),
        ("/servers/vm1", &["web", "online"]),
        ("/servers/vm1/apps/web", &["web", "online"]),
        ("/servers/vm2", &["vm2"]),
        ("/events", &["vm1"]),
        ("/commands", &["restart", "admin"]),
        ("/login", &["<form"]),
    ] {
        let answer = anybody.get(path).await?;
        assert!(answer.header("content-type").starts_with("text/html"), "{path}");
        let policy = answer.header("content-security-policy").to_owned();
        assert!(policy.contains("default-src 'none'"), "{path}: {policy}");
        let html = answer.ok()?;
        for word in words {
            assert!(html.contains(word), "{path} does not show {word}: {html}");
        }
        assert!(!html.contains(hostile), "{path} lets an app's name break out");
        assert!(html.contains("name=\"viewport\""), "{path} is not for telephones");
        // What it loads comes from here, and is there.
        for link in html.split(['"', '\'']).filter(|text| text.starts_with("/static/")) {
            anybody.get(link).await?.ok()?;
        }
    }
    let odd = "/servers/vm1/apps/%3Cscript%3Ealert(1)%3C%2Fscript%3E";
    assert!(!anybody.get(odd).await?.ok()?.contains(hostile));
    let missing = anybody.get("/servers/vm9").await?;
    assert_eq!(missing.status, 404);
    assert!(missing.header("content-type").starts_with("text/html"), "{}", missing.text);
    Ok(())
}

#[tokio::test]
async fn the_api_tells_servers_apps_history_and_discovery() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({"name": "busy", "script": "busy.js"})]).await?;
    let exporter = scene::guarded_exporter(pm2.home(), "sample_interval = \"1s\"").await?;
    wait_for_instances(&exporter.read, "busy", Status::Online, 1).await?;
    let nowhere = Port::free()?;
    let servers = [
        Server::of("vm1", &exporter),
        Server::open("vm2", format!("http://{}", nowhere.address())),
    ];
    let poller = scene::poller(&servers, "").await?;
    poller.wait_for("vm1", "online").await?;
    poller.wait_for("vm2", "offline").await?;

    let ids = |answer: Value| -> Result<Vec<String>> {
        let servers = answer["servers"].as_array().context("no servers")?.clone();
        Ok(servers.iter().filter_map(|server| Some(server["id"].as_str()?.to_owned())).collect())
    };
    assert_eq!(ids(poller.admin.json("/api/servers").await?)?, ["vm1", "vm2"]);
    for (status, id) in [("online", "vm1"), ("offline", "vm2")] {
        wait_until(&format!("{id} alone is {status}"), SOON, async || {
            let path = format!("/api/servers?status={status}");
            (ids(poller.admin.json(&path).await.ok()?).ok()? == [id]).then_some(())
        })
        .await?;
    }
    assert_eq!(ids(poller.admin.json("/api/servers?q=m2").await?)?, ["vm2"]);
    let apps: Value = poller.admin.json("/api/servers/vm1/apps").await?;
    assert!(apps.to_string().contains("\"busy\""), "{apps}");

    let discovered: Value = poller.admin.json("/sd/prometheus").await?;
    let address = exporter.program.launch().address();
    assert!(discovered.is_array() && discovered.to_string().contains(&address), "{discovered}");

    let history = async |metric: &str| -> Option<Vec<Value>> {
        let path = format!("/api/servers/vm1/apps/busy/metrics?metric={metric}&step=1s");
        let answer: Value = poller.admin.json(&path).await.ok()?;
        let points = answer["series"].as_array()?.first()?["points"].as_array()?.clone();
        (points.len() >= 3).then_some(points)
    };
    let memory = wait_until("memory has a history", SOON, async || history("memory").await).await?;
    for point in &memory {
        let number = |index: usize| point[index].as_f64().unwrap_or(f64::NAN);
        let (min, mean, max) = (number(1), number(2), number(3));
        assert!(min <= mean && mean <= max && min > 10e6 && max < 1e9, "{point}");
    }
    let cpu = wait_until("CPU has a history", SOON, async || history("cpu").await).await?;
    // How much it gets depends on what else runs: the exporter's own journal says how much it was.
    let journal: JournalPage = exporter.read.json("/api/journal?limit=10000").await?;
    let used = journal.entries.iter().filter_map(|entry| match &entry.record {
        Record::Sample(sample) => {
            let busy = sample.processes.iter().find(|it| it.instance.name.as_str() == "busy")?;
            Some((entry.time, busy.readings.cpu_seconds?))
        }
        Record::Event(_) => None,
    });
    let used: Vec<(Time, f64)> = used.collect();
    let rates: Vec<f64> = used
        .windows(2)
        .map(|pair| {
            let seconds = pair[1].0.millis_since(pair[0].0) as f64 / 1000.0;
            (pair[1].1 - pair[0].1) / seconds
        })
        .collect();
    for point in &cpu {
        let number = |index: usize| point[index].as_f64().unwrap_or(f64::NAN);
        let (min, mean, max) = (number(1), number(2), number(3));
        let was = |cores: f64| rates.iter().any(|rate| (rate - cores).abs() < 1e-3);
        assert!(was(min) && was(max), "{point}: not what was used: {rates:?}");
        assert!(min <= mean && mean <= max && max < 1.1, "{point}");
    }
    let most = cpu.iter().filter_map(|point| point[3].as_f64()).fold(0.0, f64::max);
    assert!(most > 0.0, "an app that is always busy uses none: {cpu:?}");
    Ok(())
}
