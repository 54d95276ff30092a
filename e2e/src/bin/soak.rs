//! `make soak`: a poller of a hundred simulated servers, used for `SOAK_MINUTES` (60); whether its
//! memory grows, its descriptors are flat, its log bounded and its answers right.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use e2e::soak::{Outcome, Settings, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let minutes = std::env::var("SOAK_MINUTES").unwrap_or_else(|_| "60".to_owned());
    let minutes: u64 = minutes.parse().context("SOAK_MINUTES is no number")?;
    let time = Duration::from_secs(60 * minutes.clamp(1, 10_000));
    let Outcome { slope, resident, descriptors, log, polls, answers } =
        run(Settings { servers: 100, interval: Duration::from_secs(1), time }).await?;
    let mut out = std::io::stdout();
    let mut good = true;
    let mut line = |what: &str, is: bool| {
        good &= is;
        let verdict = if is { "as it should be" } else { "WRONG" };
        writeln!(out, "{what:<70} {verdict}")
    };
    line(&format!("memory: {resident:.1} MiB, {slope:+.2} MiB an hour"), slope < 1.0)?;
    let (least, most) = descriptors;
    line(&format!("descriptors: {least} to {most}"), most - least <= 150)?;
    line(&format!("write-ahead log: {log} bytes at most"), log <= 16 << 20)?;
    line(&format!("polls: {}, {} failed", polls.0, polls.1), polls.1 == 0.0)?;
    line(&format!("answers: {}, {} wrong", answers.0, answers.1), answers.1 == 0)?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
