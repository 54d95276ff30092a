//! What history costs on disk and in time, with every tier full as after a month and more. The
//! clock is simulated, the store and the disk are real.

pub(crate) mod fill;

use std::time::{Duration, Instant};

use anyhow::Context;
use e2e::Folder;
use e2e::bench::Bench;
use e2e::bench::measure::Samples;
use e2e::bench::table::Table;
use fill::{DAY, Filling};
use pm2_poller::store::{HistoryQuery, Store, Subject};
use wire::Time;

const SERVERS: u32 = 2;
/// Minutes go after 30 days, so that this long shows their plateau: `BENCH_STORE_DAYS`.
const DAYS: i64 = 33;

/// See the module.
///
/// # Errors
/// The database fails.
pub(crate) async fn run(bench: &Bench) -> anyhow::Result<()> {
    let days = match std::env::var("BENCH_STORE_DAYS") {
        Ok(days) => days.parse().context("BENCH_STORE_DAYS is no number")?,
        Err(_) => DAYS,
    };
    let folder = Folder::new()?;
    let path = folder.join("poller.db");
    let store = Store::open(&path).await?;
    let end = Time::now();
    let mut filling = Filling::new(SERVERS, end.plus_millis(-days * DAY), Duration::from_secs(10))?;
    bench.progress(format_args!("{days} days of {SERVERS} servers, a sample every 10 s"));
    let begun = Instant::now();
    filling.fill(&store, end).await?;
    let took = begun.elapsed().as_secs_f64();

    let tiers = store.history_sizes().await?;
    let used = store.used_bytes().await? as f64;
    let mut table = Table::new("on disk", &["bytes", "values", "bytes a value"]).without_ratios();
    for (name, (bytes, values)) in ["samples", "minutes", "hours"].iter().zip(tiers) {
        let (bytes, values) = (bytes as f64, values as f64);
        table.row(format!("blocks of {name}"), [bytes, values, bytes / values]);
    }
    let values: f64 = tiers.iter().map(|(_, values)| *values as f64).sum();
    table.row("the whole file", [used, values, used / values]);
    bench.print(&table);
    bench.print(format_args!(
        "taking in and folding: {:.2} µs a value, {} values, of which a server has a MB for {:.1} days",
        took * 1e6 / filling.values as f64,
        filling.values,
        1e6 * f64::from(SERVERS) / used * days as f64,
    ));
    bench.target("bytes on disk a value, all tiers and indexes", used / values, 2.0);
    reading(bench, &store, end, days).await?;
    store.close().await;
    Ok(())
}

async fn reading(bench: &Bench, store: &Store, end: Time, there: i64) -> anyhow::Result<()> {
    let mut table = Table::new("reading an app's history, ms", &["p50", "p99"]).without_ratios();
    for (name, days, metrics) in [
        ("cpu and memory, 24 h", 1, &["cpu", "memory"][..]),
        ("everything, 24 h", 1, &[]),
        ("cpu and memory, 30 d", 30, &["cpu", "memory"]),
    ] {
        if days > there {
            continue;
        }
        let mut samples = Samples::default();
        for number in 0..200 {
            let from = end.plus_millis(-days * DAY);
            let step_millis = pm2_poller::store::known_step(days * DAY / 240);
            let query = HistoryQuery {
                server: format!("vm{}", number % SERVERS).parse()?,
                subject: Subject::App("slot-a".parse()?),
                metrics: metrics.iter().map(|metric| (*metric).to_owned()).collect(),
                from,
                to: end,
                step_millis,
            };
            let begun = Instant::now();
            let series = store.history(&query).await?;
            samples.push(begun.elapsed().as_secs_f64() * 1e3);
            anyhow::ensure!(series.iter().any(|it| it.points.len() > 100), "{name}: too little");
        }
        table.row(name, [samples.median(), samples.percentile(0.99)]);
    }
    bench.print(&table);
    Ok(())
}
