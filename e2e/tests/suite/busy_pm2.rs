//! A PM2 that much is asked of: the queue of changes, the saved list, and readers that are too slow.

use anyhow::{Context, Result};
use e2e::scene::{self, metrics, succeeded, wait_for_instances};
use e2e::{Pm2, SOON, wait_until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::Status;

/// U7
#[tokio::test]
async fn of_a_hundred_changes_at_once_seventeen_are_taken_one_after_the_other() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({"name": "web", "script": "web.js"})]).await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    wait_for_instances(&exporter.read, "web", Status::Online, 1).await?;
    let asked: Vec<_> = (0..100)
        .map(|_| {
            let client = exporter.control.clone();
            tokio::spawn(async move { client.post("/api/processes/web/restart?wait=240s").await })
        })
        .collect();
    let (mut done, mut refused) = (0, 0);
    for answer in asked {
        let answer = answer.await??;
        if answer.status == 503 {
            answer.problem(503, "busy")?;
            anyhow::ensure!(answer.header("retry-after") == "1", "{:?}", answer.headers);
            refused += 1;
        } else {
            succeeded(&answer)?;
            done += 1;
        }
    }
    assert!(done >= 17 && refused > 0, "{done} done, {refused} refused");
    // Each ran once, and nothing else.
    let web = pm2.processes_of("web")?;
    assert_eq!((web.len(), &web[0]["pm2_env"]["restart_time"]), (1, &json!(done)));
    Ok(())
}

/// U8
#[tokio::test]
async fn a_fuller_saved_list_is_not_replaced_by_an_emptier_one() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let app = |name: &str| json!({"name": name, "script": "web.js"});
    pm2.start_apps(vec![app("one"), app("two")]).await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    wait_for_instances(&exporter.read, "two", Status::Online, 1).await?;
    let saved = exporter.control.post("/api/processes/one/restart?save=true").await?;
    assert_eq!(succeeded(&saved)?["error"], Value::Null);
    let dump = pm2.home().join("dump.pm2");
    let before = std::fs::read(&dump)?;

    // As after a crash of the daemon: PM2 runs, and its apps do not.
    pm2.kill_daemon()?;
    pm2.ensure_daemon().await?;
    pm2.start_apps(vec![app("new")]).await?;
    wait_for_instances(&exporter.read, "new", Status::Online, 1).await?;
    let answer = exporter.control.post("/api/processes/new/restart?save=true").await?;
    let told = succeeded(&answer)?;
    let error = told["error"].as_str().context("nothing told")?;
    assert!(error.contains("one") && error.contains("two"), "{error}");
    assert!(std::fs::read(&dump)? == before, "the saved list was changed");
    wait_until("the drift is told", SOON, async || {
        let page = metrics(&exporter.read).await.ok()?;
        let extra = page.value("pm2_dump_extra_processes", &[]).ok()?;
        let missing = page.value("pm2_dump_missing_processes", &[]).ok()?;
        ((extra, missing) == (2.0, 1.0)).then_some(())
    })
    .await
}

#[tokio::test]
async fn processes_that_were_scaled_away_are_a_drift() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let web =
        json!({"name": "web", "script": "metrics.js", "instances": 2, "exec_mode": "cluster"});
    pm2.start_apps(vec![web]).await?;
    pm2.cli(&["save"]).await?;
    let exporter = scene::exporter(pm2.home()).await?;
    let drift = async |expected: (f64, f64)| {
        wait_until("the drift is told", SOON, async || {
            let page = metrics(exporter.client()).await.ok()?;
            let missing = page.value("pm2_dump_missing_processes", &[]).ok()?;
            let extra = page.value("pm2_dump_extra_processes", &[]).ok()?;
            ((missing, extra) == expected).then_some(())
        })
        .await
    };
    drift((0.0, 0.0)).await?;
    pm2.cli(&["scale", "web", "1"]).await?;
    drift((0.0, 1.0)).await?;
    let checked = exporter.launch().with(&["check"]).run().await?;
    assert!(checked.stdout.contains("would start web, which"), "{}", checked.stdout);
    pm2.cli(&["scale", "web", "4"]).await?;
    drift((2.0, 0.0)).await?;
    let checked = exporter.launch().with(&["check"]).run().await?;
    assert!(checked.stdout.contains("would lose web (2 processes)"), "{}", checked.stdout);
    pm2.cli(&["save"]).await?;
    drift((0.0, 0.0)).await
}

/// U12
#[tokio::test]
async fn a_reader_that_takes_nothing_is_let_go_and_costs_no_memory() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let script = pm2.folder().write("chatty.js", "setInterval(() => {}, 1000)\n")?;
    pm2.start_apps(vec![json!({"name": "chatty", "script": script})]).await?;
    let exporter = scene::exporter(pm2.home()).await?;
    wait_for_instances(exporter.client(), "chatty", Status::Online, 1).await?;
    let log = pm2.processes_of("chatty")?[0]["pm2_env"]["pm_out_log_path"].clone();
    let log = log.as_str().context("no log")?.to_owned();
    // Enough lines to fill every buffer on the way many times over.
    let lines = "a line of an application that talks and talks\n".repeat(20_000);
    let more = || -> Result<()> {
        use std::io::Write;
        let mut file = std::fs::File::options().append(true).create(true).open(&log)?;
        Ok(file.write_all(lines.as_bytes())?)
    };
    more()?;
    let path = "/api/processes/chatty/logs?follow=true&lines=0";
    let mut reader = tokio::net::TcpStream::connect(exporter.launch().address()).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    reader.write_all(request.as_bytes()).await?;
    let mut head = [0; 64];
    reader.read_exact(&mut head).await?;
    let memory = || e2e::bench::measure::mebibytes(exporter.pid(), "Rss");
    let before = memory()?;
    for _ in 0..40 {
        more()?;
        exporter.client().get("/healthz").await?.ok()?;
    }
    let grown = memory()? - before;
    assert!(grown < 16.0, "{grown} MiB more for a reader that takes nothing");
    wait_until("the reader is let go", SOON, async || {
        exporter.stderr().contains("too slow").then_some(())
    })
    .await
}
