//! What it costs to know who asks, and what slow connections do to those who ask.

mod slow;
mod tokens;

use e2e::bench::Bench;

/// See the module.
///
/// # Errors
/// Something that is measured does not run or does not answer.
pub(crate) async fn run(bench: &Bench) -> anyhow::Result<()> {
    tokens::run(bench).await?;
    slow::run(bench).await
}
