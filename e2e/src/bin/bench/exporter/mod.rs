//! The exporter beside npm `pm2-metrics`, at the same daemon, in the same run; what a flood of log lines
//! costs it, and how soon it hands on what happens. `pm2-prom-module` is not on npm.

mod events;
mod flood;
mod scrape;

use e2e::bench::Bench;
use scrape::Targets;

/// See the module.
///
/// # Errors
/// Something that is measured does not run or does not answer.
pub(crate) async fn run(bench: &Bench) -> anyhow::Result<()> {
    let few = Targets { memory: 8.0, cpu: 1.0 / 15.0, p50: 1.0 / 10.0, rest: 0.1 };
    scrape::run(bench, 6, few).await?;
    let many = Targets { memory: 12.0, cpu: 1.0 / 20.0, p50: 1.0 / 15.0, rest: 0.3 };
    scrape::run(bench, 60, many).await?;
    flood::run(bench).await?;
    events::run(bench).await
}
