//! `make soak`: a poller of a hundred simulated servers, used for `SOAK_WARM_MINUTES` (65), until an hour of
//! history, which is what is asked for most, is all there, and then for `SOAK_MINUTES` (60); whether its
//! memory grows, its descriptors are flat, its log bounded and its answers right.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use e2e::soak::{Outcome, Settings, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let (warm, time) = (minutes("SOAK_WARM_MINUTES", "65", 0)?, minutes("SOAK_MINUTES", "60", 1)?);
    let settings = Settings { servers: 100, interval: Duration::from_secs(1), warm, time };
    let outcome = run(settings).await?;
    let Outcome { slope, error, resident, descriptors, log, polls, answers } = outcome;
    let mut out = std::io::stdout();
    let mut good = true;
    let mut line = |what: &str, is: bool| {
        good &= is;
        let verdict = if is { "as it should be" } else { "WRONG" };
        writeln!(out, "{what:<70} {verdict}")
    };
    let resident: Vec<String> = resident.iter().map(|least| format!("{least:.1}")).collect();
    let grown = format!("memory at rest: {slope:+.2} MiB an hour, give or take {error:.2}");
    line(&grown, slope < 1.0)?;
    writeln!(std::io::stdout(), "  MiB: {}", resident.join(" "))?;
    let (least, most) = descriptors;
    line(&format!("descriptors: {least} to {most}"), most - least <= 150)?;
    line(&format!("write-ahead log: {log} bytes at most"), log <= 16 << 20)?;
    line(&format!("polls: {}, {} failed", polls.0, polls.1), polls.1 == 0.0)?;
    line(&format!("answers: {}, {} wrong", answers.0, answers.1), answers.1 == 0)?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// So many minutes, by a variable of the environment.
fn minutes(name: &str, default: &str, least: u64) -> anyhow::Result<Duration> {
    let text = std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let minutes: u64 = text.parse().with_context(|| format!("{name} is no number"))?;
    Ok(Duration::from_secs(60 * minutes.clamp(least, 10_000)))
}
