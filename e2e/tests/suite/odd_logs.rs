//! Something else stands where PM2 keeps a log: an application put it there.

use std::os::unix::fs::{FileTypeExt, symlink};

use anyhow::Result;
use e2e::scene::{self, wait_for_instances};
use e2e::{Pm2, SOON, wait_until};
use serde_json::{Value, json};
use wire::{EventKind, Record, Status};

#[tokio::test]
async fn a_pipe_in_place_of_a_log_stops_nothing() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    pm2.start_apps(vec![
        json!({"name": "web", "script": "web.js"}),
        json!({"name": "odd", "script": "pipe-for-log.js", "autorestart": false}),
    ])
    .await?;
    wait_for_instances(&exporter.read, "odd", Status::Stopped, 1).await?;
    let is_pipe = |path: String| {
        std::fs::symlink_metadata(pm2.home().join(path)).is_ok_and(|it| it.file_type().is_fifo())
    };
    assert!(is_pipe("logs/odd-error.log".to_owned()) && is_pipe("logs/odd-out.log".to_owned()));

    wait_until("the exit is told", SOON, async || {
        let page: wire::JournalPage = exporter.read.json("/api/journal?after=0").await.ok()?;
        let is_exit = |entry: &wire::Entry| matches!(&entry.record, Record::Event(event) if event.kind == EventKind::EXIT);
        page.entries.iter().any(is_exit).then_some(())
    })
    .await?;
    for path in ["/api/processes/odd/logs", "/api/processes/odd/logs?follow=true"] {
        let problem = exporter.read.get(path).await?.problem(500, "log_unreadable")?;
        assert!(problem.detail.contains("is no regular file"), "{problem:?}");
    }
    let flushed = exporter.control.post("/api/processes/odd/flush").await?;
    let record: Value = flushed.json()?;
    assert_eq!(record["status"], "failed", "{record}");
    assert!(record["error"].as_str().is_some_and(|it| it.contains("no regular file")), "{record}");
    wait_for_instances(&exporter.read, "web", Status::Online, 1).await?;
    Ok(())
}

#[tokio::test]
async fn a_log_may_be_a_link_of_the_same_user() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let elsewhere = pm2.folder().join("elsewhere.log");
    std::fs::write(&elsewhere, "kept elsewhere\n")?;
    let log = pm2.folder().join("link.log");
    symlink(&elsewhere, &log)?;
    pm2.start_apps(vec![json!({"name": "web", "script": "web.js", "out_file": log})]).await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    wait_for_instances(&exporter.read, "web", Status::Online, 1).await?;
    let text = exporter.read.get("/api/processes/web/logs?stream=out").await?.ok()?;
    assert!(text.starts_with("kept elsewhere\n"), "{text}");
    scene::succeeded(&exporter.control.post("/api/processes/web/flush").await?)?;
    assert!(!std::fs::read_to_string(&elsewhere)?.contains("kept elsewhere"));
    Ok(())
}
