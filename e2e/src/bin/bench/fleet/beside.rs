//! A thousand servers, polled by the poller and scraped by Prometheus at the same time.

use std::time::Duration;

use anyhow::Context;
use e2e::bench::Bench;
use e2e::bench::measure::mebibytes;
use e2e::bench::table::Table;
use e2e::{Metrics, Prometheus, process};

use super::pages;
use super::settings::Settings;
use super::stage::{INTERVAL, Stage, others};
use crate::store::fill;

const SERVERS: u32 = 1000;
/// Those with a month behind them, for questions about the past.
pub(super) const WITH_HISTORY: u32 = 3;

pub(super) async fn run(bench: &Bench, settings: &Settings) -> anyhow::Result<()> {
    bench.progress(format_args!("a month of history of {WITH_HISTORY} servers"));
    // A crash a server and quarter of an hour: more than a sound fleet has, so that enough
    // events are seen in a minute.
    let stage = Stage::start(SERVERS, &["--crash-every", "15m"], "", async |folder| {
        fill::month(&folder.join("poller.db"), WITH_HISTORY).await
    })
    .await?;
    let prometheus = Prometheus::with(&format!(
        "global: {{scrape_interval: 10s, scrape_timeout: 10s}}\n\
         scrape_configs:\n\
         \x20 - job_name: pm2\n\
         \x20   file_sd_configs: [{{files: [{:?}]}}]\n",
        stage.simulator.targets()
    ))
    .await?;
    process::pin(prometheus.pid(), others())?;
    bench.progress(format_args!("{SERVERS} servers, polled and scraped"));
    tokio::time::sleep(Duration::from_secs_f64(3.0 * INTERVAL)).await;

    let (before, theirs_before) = (stage.look().await?, scraped(&prometheus).await?);
    // What Prometheus uses differs from one half minute to the next.
    tokio::time::sleep(settings.window * 5).await;
    let (ours, theirs_after) = (stage.since(&before).await?, scraped(&prometheus).await?);
    let series = prometheus.query("avg(scrape_samples_scraped)").await?;
    let series = series.first().context("Prometheus has scraped nothing")?.value;
    // Prometheus adds five series of its own to each scrape.
    let scrapes = (theirs_after.samples - theirs_before.samples) / (series + 5.0);
    let their_cpu = (theirs_after.cpu - theirs_before.cpu) * 1e3 / scrapes;
    let their_memory = mebibytes(prometheus.pid(), "Rss")?;

    let mut table = Table::new(format!("{SERVERS} servers, 10 s"), &["pm2-poller", "Prometheus"]);
    table.row("CPU a poll or scrape, ms", [ours.cpu_per_poll, their_cpu]);
    table.row("memory, RSS, MiB", [ours.resident, their_memory]);
    table.count("series a server", [f64::NAN, series]);
    table.count("lateness p99, ms", [ours.late, f64::NAN]);
    bench.print(&table);
    let part = ours.cpu_per_poll / their_cpu;
    bench.target("1,000 servers: CPU a poll, part of Prometheus'", part, 1.0 / 6.0);
    let part = ours.resident / their_memory;
    bench.target("1,000 servers: resident memory, part of Prometheus'", part, 1.0 / 8.0);

    bench.progress("what people and programs ask for, under that load");
    pages::run(bench, &stage).await?;
    drop(prometheus);
    Ok(())
}

struct Scraped {
    cpu: f64,
    samples: f64,
}

async fn scraped(prometheus: &Prometheus) -> anyhow::Result<Scraped> {
    let page: Metrics = prometheus.metrics().await?;
    let all = page.all("prometheus_tsdb_head_samples_appended_total", &[]);
    anyhow::ensure!(!all.is_empty(), "Prometheus does not count its samples");
    let samples = all.iter().map(|series| series.value).sum();
    let cpu = process::cpu_seconds(prometheus.pid()).context("Prometheus has ended")?;
    Ok(Scraped { cpu, samples })
}
