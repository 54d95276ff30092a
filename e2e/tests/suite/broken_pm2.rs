//! A PM2 that breaks in every way that a real one would not break on demand.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::scene::{self, metrics};
use e2e::{Client, FakePm2, Mode, Program, SOON, Stopwatch, amp, pm2_process, process, wait_until};
use serde_json::json;

/// Every scrape wants something of the daemon.
async fn exporter(fake: &FakePm2) -> Result<Program> {
    let launch = e2e::Launch::exporter()?
        .pm2_home(fake.home())
        .configuration("custom_metrics_max_age = \"0\"")?;
    let exporter = launch.start().await?;
    is_up(exporter.client(), true).await?;
    Ok(exporter)
}

async fn is_up(client: &Client, up: bool) -> Result<()> {
    wait_until(&format!("pm2_up is {up}"), SOON, async || {
        let page = metrics(client).await.ok()?;
        (page.value("pm2_up", &[]).ok()? == f64::from(u8::from(up))).then_some(())
    })
    .await
}

#[tokio::test]
async fn every_way_of_breaking_is_survived_and_told() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(6))?;
    let exporter = exporter(&fake).await?;
    let client = exporter.client();
    let modes = [
        Mode::Hangs,
        Mode::Refuses,
        Mode::Absent,
        Mode::HalfFrame,
        Mode::Garbage,
        Mode::Huge(256 << 20),
        Mode::Closes,
    ];
    for mode in modes {
        fake.set_mode(mode.clone())?;
        for path in ["/metrics", "/api/state", "/api/processes", "/"] {
            let start = Stopwatch::start(&[exporter.pid()]);
            let answer = client.get(path).await?;
            assert_eq!(answer.status, 200, "{mode:?} {}", answer.text);
            assert!(
                start.elapsed() <= Duration::from_secs(1),
                "{mode:?} {path} {:?}",
                start.elapsed()
            );
        }
        is_up(client, false).await.with_context(|| format!("{mode:?}"))?;
        let state: wire::State = client.json("/api/state").await?;
        let error = state.pm2.error.with_context(|| format!("{mode:?}: no reason"))?;
        assert!(!error.is_empty(), "{mode:?}");
        client.get("/readyz").await.map(|answer| assert_eq!(answer.status, 503))?;
        fake.set_mode(Mode::Answers)?;
        is_up(client, true)
            .await
            .with_context(|| format!("after {mode:?}: {}", exporter.stderr()))?;
        let list: wire::ProcessList = client.json("/api/processes").await?;
        assert_eq!(list.total, 6, "after {mode:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_huge_answer_costs_no_memory() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(6))?;
    let exporter = exporter(&fake).await?;
    let before = process::memory(exporter.pid(), "Rss").context("no memory")?;
    fake.set_mode(Mode::Huge(512 << 20))?;
    is_up(exporter.client(), false).await?;
    let peak = process::peak_memory(exporter.pid()).context("no memory")?;
    let more = peak.saturating_sub(before);
    assert!(more < 96 << 20, "{} MiB more", more >> 20);
    Ok(())
}

#[tokio::test]
async fn a_hung_daemon_is_not_asked_by_every_scrape() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(6))?;
    let exporter = exporter(&fake).await?;
    fake.set_mode(Mode::Hangs)?;
    let before = fake.calls().len();
    let start = Instant::now();
    let scrapes = (0..100).map(|_| {
        let client = exporter.client().clone();
        tokio::spawn(async move { client.get("/metrics").await?.ok() })
    });
    let scrapes: Vec<_> = scrapes.collect();
    for scrape in scrapes {
        scrape.await??;
    }
    let asked = fake.calls().len() - before;
    let seconds = start.elapsed().as_secs_f64();
    // One call under way at a time, and each has a deadline.
    assert!(asked as f64 <= 3.0 + 3.0 * seconds, "asked {asked} times in {seconds} s");
    Ok(())
}

#[tokio::test]
async fn nonsense_on_the_bus_is_survived() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(2))?;
    let exporter = exporter(&fake).await?;
    let client = exporter.client();
    wait_until("it listens to the bus", SOON, async || (fake.subscribers() > 0).then_some(()))
        .await?;
    for body in [
        json!(null),
        json!([]),
        json!({"event": 5}),
        json!({"event": "online", "process": null}),
        json!({"event": "exit", "process": {"pm_id": -1, "name": {"a": 1}}}),
        json!({"event": "exit", "process": {"pm_id": 1e300, "name": "x".repeat(100_000)}}),
    ] {
        fake.publish("process:event", &body);
        fake.publish("process:exception", &body);
        fake.publish("log:PM2", &body);
        fake.publish("log:out", &body);
        fake.publish("unheard:of", &body);
    }
    fake.publish_bytes(&amp::encode(&[b"s:process:event", b"j:{not json"]));
    fake.publish_bytes(&amp::encode(&[b"no prefix"]));
    fake.publish_bytes(&amp::encode(&[]));
    fake.publish_bytes(&[0xff; 1000]);
    // The bus is found again, and what happens then is heard.
    wait_until("a new process is heard of", SOON, async || {
        let mut processes = pm2_process::processes(2);
        processes.push(pm2_process::process(7, "new", std::process::id()));
        fake.set_processes(processes.clone());
        fake.publish_event("online", processes.last()?);
        let found = scene::instances(client, "new").await.ok()?;
        (found.len() == 1).then_some(())
    })
    .await
    .with_context(|| exporter.stderr())?;
    assert!(!exporter.has_ended() && !exporter.stderr().contains("panicked"));
    Ok(())
}

#[tokio::test]
async fn a_flood_on_the_bus_is_not_in_the_way() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(2))?;
    let exporter = exporter(&fake).await?;
    wait_until("it listens to the bus", SOON, async || (fake.subscribers() > 0).then_some(()))
        .await?;
    // As PM2 7.0.4 writes it for fork mode.
    let line = format!(
        "{{\"process\":{{\"pm_id\":0,\"name\":\"app-0\",\"rev\":null,\"namespace\":\"default\"}},\
         \"at\":1795319070643,\"data\":\"{}\\n\"}}",
        "x".repeat(999)
    );
    let before = process::memory(exporter.pid(), "Rss").context("no memory")?;
    let start = Instant::now();
    for _ in 0..100 {
        for _ in 0..1000 {
            fake.publish_text("log:out", &line);
        }
        exporter.client().get("/api/processes").await?.ok()?;
    }
    let after = process::memory(exporter.pid(), "Rss").context("no memory")?;
    assert!(after.saturating_sub(before) < 16 << 20, "{before} to {after} bytes");
    assert!(fake.subscribers() > 0, "cut off after {:?}", start.elapsed());
    let found = scene::instances(exporter.client(), "app-0").await?;
    let heard = found[0].readings.log_out_bytes.context("no bytes of log")?;
    assert!(heard <= 100_000 * 1_000 && heard > 50_000 * 1_000, "{heard} bytes heard");
    Ok(())
}
