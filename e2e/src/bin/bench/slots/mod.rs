//! Slots on real PM2: what a free one costs, how long one that is switched answers nobody, and
//! what deployments that fail cost those who use what runs.

mod failing;
mod load;
mod placeholders;
mod stage;
mod switch;

use e2e::bench::Bench;

/// See the module.
///
/// # Errors
/// Something that is measured does not run or does not answer.
pub(crate) async fn run(bench: &Bench) -> anyhow::Result<()> {
    placeholders::run(bench).await?;
    let stage = stage::Stage::start(1, "").await?;
    switch::run(bench, &stage).await?;
    failing::run(bench, &stage).await
}
