//! Every query of every dashboard gives something, from a Prometheus that scraped the real programs
//! for a while: through the poller, and the exporters themselves, each with the configuration that
//! is shipped.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::grafana::{Addresses, Query, prometheus_folder, queries};
use e2e::scene::{self, Server, wait_for_instances};
use e2e::{Alertmanager, Client, Folder, Launch, Pm2, Port, Prometheus, SOON, process, wait_until};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use wire::Status;

/// Queries that find nothing here, and why: dashboard, place, reason.
const NOTHING: &[(&str, &str, &str)] = &[];

/// A git repository with an application for a slot.
fn repository(folder: &Folder) -> Result<String> {
    let package = r#"{"name":"shop","version":"1.0.0","scripts":{"start":"node server.js"}}"#;
    let server =
        "require('http').createServer((q, r) => r.end('shop')).listen(process.env.PORT);\n";
    folder.write("package.json", package)?;
    folder.write("server.js", server)?;
    for words in
        [&["init", "-q", "-b", "main"][..], &["add", "-A"], &["commit", "-q", "-m", "shop"]]
    {
        let done = Command::new("git")
            .args(["-c", "user.name=test", "-c", "user.email=test@example.org"])
            .args(words)
            .current_dir(folder.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .status()?;
        ensure!(done.success(), "git {words:?}: {done}");
    }
    Ok(format!("file://{}", folder.path().display()))
}

async fn deploy(exporter: &Client, slot: &str, repository: &str) -> Result<Value> {
    let path = format!("/api/slots/{slot}/deploy?wait=60s");
    let request = exporter.request(Method::POST, &path).json(&json!({"repository": repository}));
    let answer = exporter.send(request).await?;
    ensure!(answer.status == 200, "{}", answer.text);
    answer.json()
}

/// A figure or table of servers as they are now: not of the dashboard's time, and not of alerts.
fn speaks_of_servers(query: &Query) -> bool {
    let elsewhere = query.dashboard == "poller" || query.text.contains("ALERTS");
    !elsewhere && !query.text.contains("[60s]")
}

#[tokio::test]
async fn every_query_of_every_dashboard_gives_something() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let (web, crash) = (Port::free()?, Port::free()?);
    pm2.start_apps(vec![
        json!({"name": "metrics", "script": "metrics.js"}),
        json!({"name": "web", "script": "web.js", "env": {"PORT": web.number().to_string()}}),
        json!({"name": "crash", "script": "crash.js", "env": {"PORT": crash.number().to_string()}}),
    ])
    .await?;
    let (a, b) = (Port::free()?, Port::free()?);
    let (token, block) = scene::exporter_token("all", &["read", "control", "deploy"])?;
    let launch = Launch::exporter()?.pm2_home(pm2.home()).configuration(&format!(
        "{block}expires = \"2099-01-01T00:00:00Z\"\n[slots]\nroot = {:?}\nallow_file_repositories = true\npm2 = {:?}\n\
         [slots.admin]\nenabled = false\n[[slots.slot]]\nname = \"a\"\nport = {}\n\
         [[slots.slot]]\nname = \"b\"\nport = {}\n",
        pm2.folder().join("slots").display().to_string(),
        e2e::setup::pm2_cli().display().to_string(),
        a.number(),
        b.number(),
    ))?;
    let up = launch.clone().with(&["slots", "up"]);
    let configuration = launch.folder().join("configuration.toml").display().to_string();
    let up = up.argument("--config").argument(&configuration).run().await?;
    ensure!(up.code == Some(0), "slots up: {}", up.stderr);
    let exporter = launch.start().await?;
    let client = exporter.client().with_token(&token);
    wait_for_instances(&client, "slot-a", Status::Online, 1).await?;

    let alertmanager = Alertmanager::start().await?;
    let notify = format!(
        "[[notify]]\nname = \"am\"\ntype = \"alertmanager\"\nhold = \"1s\"\nurl = \"http://{}\"\n",
        alertmanager.address()
    );
    let never = Port::free()?;
    let poller = scene::poller(
        &[
            Server {
                id: "vm1".to_owned(),
                url: exporter.launch().base(),
                token: Some(token.clone()),
            },
            Server::open("never", format!("http://{}", never.address())),
        ],
        &notify,
    )
    .await?;
    poller.wait_for("vm1", "online").await?;
    let addresses = Addresses {
        poller: (poller.program.launch().address(), poller.token.clone()),
        exporter_token: None,
        alertmanager: alertmanager.address().to_owned(),
    };
    let direct = Addresses { exporter_token: Some(token.clone()), ..addresses.clone() };
    let ways = [
        ("through the poller", Prometheus::configured(prometheus_folder(&addresses)?).await?),
        ("directly", Prometheus::configured(prometheus_folder(&direct)?).await?),
    ];
    for (_, prometheus) in &ways {
        let seen = "pm2_slot_deploys_total{result='failed'}";
        prometheus.wait_for(seen, |found| !found.is_empty()).await?;
    }

    // What panels are there to show: an app that PM2 gave up on, one that was killed by its own
    // exception, requests, deployments that went well or did not, a command, a slot whose process
    // was killed again and again, a PM2 that did not answer for a while.
    pm2.start_apps(vec![
        json!({"name": "loop", "script": "crash-loop.js", "max_restarts": 5, "min_uptime": 60_000}),
    ])
    .await?;
    let folder = Folder::new()?;
    let done = deploy(&client, "a", &repository(&folder)?).await?;
    ensure!(done["status"] == "healthy", "{done:#}");
    let failed = deploy(&client, "b", "file:///nowhere/at-all").await?;
    ensure!(failed["status"] == "failed", "{failed:#}");
    let plain = Client::new(format!("http://{}", crash.address()))?;
    let _ = plain.get("/throw").await;
    let restart = poller.admin.post("/api/commands/vm1/apps/web/restart?wait=60s").await?;
    scene::succeeded(&restart)?;
    wait_for_instances(&client, "loop", Status::Errored, 1).await?;
    for _ in 0..3 {
        let slot = wait_for_instances(&client, "slot-a", Status::Online, 1).await?;
        let pid = slot[0].pid.context("no pid")?;
        process::signal(pid, Signal::KILL);
        wait_until("the slot's process is started again", SOON, async || {
            let slot = scene::instances(&client, "slot-a").await.ok()?;
            slot.first()?.pid.is_some_and(|now| now != pid).then_some(())
        })
        .await?;
    }
    pm2.freeze()?;
    for (_, prometheus) in &ways {
        let lost = |found: &[e2e::prometheus::Series]| found.iter().any(|it| it.value == 0.0);
        prometheus.wait_for("pm2_up", lost).await?;
    }
    pm2.thaw()?;

    let all = queries()?;
    ensure!(all.len() > 100, "{} queries", all.len());
    let busy = Client::new(format!("http://{}", web.address()))?;
    let last = std::sync::Mutex::new(Vec::new());
    let found = wait_until("every query gives something", SOON, async || {
        for _ in 0..20 {
            let _ = busy.get("/").await;
        }
        let mut empty = Vec::new();
        for (way, prometheus) in &ways {
            for query in &all {
                let Query { dashboard, place, text, instant } = query;
                let count = match instant {
                    true => prometheus.query(text).await.map(|found| found.len()),
                    false => prometheus.series_of_late(text).await,
                };
                let known =
                    NOTHING.iter().any(|(its, there, _)| its == dashboard && there == place);
                match count {
                    Ok(0) if !known => empty.push(format!("{way}, {dashboard}, {place}: {text}")),
                    Ok(_) => {}
                    Err(error) => empty.push(format!("{way}, {dashboard}, {place}: {error:#}")),
                }
            }
        }
        let good = empty.is_empty();
        if let Ok(mut last) = last.lock() {
            *last = empty;
        }
        good.then_some(())
    });
    let found = found.await;
    let last = last.into_inner().unwrap_or_default();
    found.with_context(|| format!("{} find nothing:\n{}", last.len(), last.join("\n")))?;
    // An exception that finds something is none.
    for (dashboard, place, reason) in NOTHING {
        ensure!(!reason.is_empty(), "{dashboard}, {place}: why?");
        let known = all.iter().any(|query| query.dashboard == *dashboard && query.place == *place);
        ensure!(known, "{dashboard}, {place}: no such query");
    }

    drop(poller);
    let (_, prometheus) = &ways[0];
    wait_until("nothing is said to be well without the poller", SOON, async || {
        for query in all.iter().filter(|query| query.instant && speaks_of_servers(query)) {
            let found = prometheus.query(&query.text).await.ok()?;
            let told = match query.place.as_str() {
                "panel Is everything all right?, A" => found.first()?.value > 0.0,
                "panel What is wrong now, A" => {
                    let only: Vec<&String> =
                        found.iter().filter_map(|row| row.labels.get("problem")).collect();
                    only == ["the poller does not answer"]
                }
                _ => found.is_empty(),
            };
            if !told {
                return None;
            }
        }
        Some(())
    })
    .await
}
