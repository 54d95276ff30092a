//! The poller at the size of a fleet: beside Debian's Prometheus at the same simulated servers,
//! what people and programs get from it under that load, how its cost grows, and TLS.
//!
//! The poller has the first core for itself, everything else the last.

pub(crate) mod asks;
mod beside;
mod growth;
mod pages;
mod settings;
pub(crate) mod stage;

use e2e::bench::Bench;
use settings::Settings;

/// See the module.
///
/// # Errors
/// Something that is measured does not run or does not answer.
pub(crate) async fn run(bench: &Bench) -> anyhow::Result<()> {
    let settings = Settings::from_environment()?;
    beside::run(bench, &settings).await?;
    growth::run(bench, &settings).await
}
