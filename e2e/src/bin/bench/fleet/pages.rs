//! Answers of a poller under load: lists, pages, metrics, the past, commands and events.

use std::time::{Duration, Instant};

use anyhow::Context;
use e2e::bench::Bench;
use e2e::bench::measure::Samples;
use e2e::bench::table::Table;
use reqwest::Method;
use serde_json::{Value, json};
use wire::Time;

use super::asks::{Asker, Took};
use super::stage::Stage;

const TIMES: usize = 200;
const COMMANDS: u32 = 200;
/// Events of so long are looked at, at the stream.
const EVENTS: Duration = Duration::from_secs(30);

pub(super) async fn run(bench: &Bench, stage: &Stage) -> anyhow::Result<()> {
    let asker = Asker::new(stage.poller.launch().base(), &stage.admin)?;
    let history = "/api/servers/vm0/apps/slot-a/metrics?metric=cpu&metric=memory&from=24h";
    let whole = "/api/servers/vm0/apps/slot-a/metrics?from=24h";
    let month = "/api/servers/vm0/apps/slot-a/metrics?metric=cpu&metric=memory&from=30d";
    let list = asker.get("/api/servers", TIMES, false).await?;
    let fleet = asker.get("/", TIMES, false).await?;
    let packed = asker.get("/", TIMES, true).await?;
    let app = asker.get("/servers/vm0/apps/slot-a", TIMES, true).await?;
    let metrics = asker.get("/metrics", 20, true).await?;
    let day = asker.get(history, TIMES, false).await?;
    let all = asker.get(whole, TIMES, false).await?;
    let thirty = asker.get(month, TIMES, false).await?;

    let mut table =
        Table::new("answers, ms", &["p50", "p99", "first byte p99", "KB"]).without_ratios();
    for (name, took) in [
        ("GET /api/servers", &list),
        ("GET / (the fleet)", &fleet),
        ("GET /, gzip", &packed),
        ("an app's page, gzip", &app),
        ("GET /metrics, gzip", &metrics),
        ("cpu and memory of an app, 24 h", &day),
        ("everything of an app, 24 h", &all),
        ("cpu and memory of an app, 30 d", &thirty),
    ] {
        let Took { first, whole, bytes } = took;
        let kilobytes = *bytes as f64 / 1e3;
        table
            .row(name, [whole.median(), whole.percentile(0.99), first.percentile(0.99), kilobytes]);
    }
    bench.print(&table);
    let p99 = |took: &Took| took.whole.percentile(0.99);
    bench.target("history of an app, 24 h: p99, ms", p99(&day), 10.0);
    bench.target("GET /api/servers: p99, ms", p99(&list), 50.0);
    bench.target("the fleet's page: first byte p99, ms", fleet.first.percentile(0.99), 50.0);
    bench.target("the fleet's page: KB", fleet.bytes as f64 / 1e3, 400.0);
    bench.target("the fleet's page: KB, gzip", packed.bytes as f64 / 1e3, 60.0);
    bench.target("history of an app, 30 d: p99, ms", p99(&thirty), 60.0);
    bench.target("GET /metrics, gzip: p50, ms", metrics.whole.median(), 100.0);

    let (ours, direct) = commands(stage, &asker).await?;
    let seen = events(&asker).await.context("events")?;
    let mut table = Table::new("ms", &["p50", "p99"]).without_ratios();
    for (name, samples) in [
        ("a command through the poller", &ours),
        ("the same at the exporter", &direct),
        ("an event, to a subscriber", &seen),
    ] {
        table.row(name, [samples.median(), samples.percentile(0.99)]);
    }
    table.count("events seen", [seen.len() as f64]);
    bench.print(&table);
    let beyond = |share| ours.percentile(share) - direct.median();
    bench.target("a command beyond the exporter's time: p50, ms", beyond(0.5), 2.0);
    bench.target("a command beyond the exporter's time: p99, ms", beyond(0.99), 10.0);
    bench.target("an event to a subscriber: p99, ms", seen.percentile(0.99), 250.0);
    Ok(())
}

/// Restarts through the poller, and at the exporters themselves, in turns.
async fn commands(stage: &Stage, asker: &Asker) -> anyhow::Result<(Samples, Samples)> {
    let blocks = stage.simulator.blocks()?;
    let urls: Vec<&str> = blocks
        .lines()
        .filter_map(|line| line.strip_prefix("url = \"")?.strip_suffix('"'))
        .collect();
    let (mut ours, mut direct) = (Samples::default(), Samples::default());
    for number in 0..COMMANDS {
        let at = (100 + 4 * number as usize) % urls.len();
        let path = format!("/api/commands/vm{at}/apps/slot-a/restart?wait=10s");
        ours.push(asker.timed(asker.request(Method::POST, &path)).await?);
        let exporter = Asker::new(urls[at + 1].to_owned(), "none")?;
        let body = json!({"target": {"app": "slot-a"}, "action": "restart"});
        let ask = |id: String| {
            let path = format!("/api/commands/{id}?wait=10s");
            exporter.timed(exporter.request(Method::PUT, &path).json(&body))
        };
        // The poller's connection to the exporter is open as well.
        ask(format!("first-{number}")).await?;
        direct.push(ask(format!("second-{number}")).await?);
    }
    Ok((ours, direct))
}

/// From the moment that an exporter gives an event to its being at a subscriber, in
/// milliseconds: all run on one clock.
async fn events(asker: &Asker) -> anyhow::Result<Samples> {
    let request = asker.request(Method::GET, "/api/events/stream");
    let mut answer = request.send().await?.error_for_status()?;
    let mut samples = Samples::default();
    let mut text = String::new();
    let end = Instant::now() + EVENTS;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let Ok(piece) = tokio::time::timeout(left, answer.chunk()).await else { break };
        let now = Time::now();
        let Some(piece) = piece? else { break };
        text.push_str(&String::from_utf8_lossy(&piece));
        while let Some((line, rest)) = text.split_once('\n') {
            let event = line.strip_prefix("data:").map(str::trim);
            if let Some(event) = event.and_then(|json| serde_json::from_str::<Value>(json).ok()) {
                let time: Time = event["time"].as_str().context("no time")?.parse()?;
                samples.push(now.millis_since(time) as f64);
            }
            text = rest.to_owned();
        }
    }
    anyhow::ensure!(samples.len() >= 10, "only {} events in {EVENTS:?}", samples.len());
    Ok(samples)
}
