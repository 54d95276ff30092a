//! How long a deployment takes, and how long a slot that is switched answers nobody, beyond what
//! the application itself takes to start.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::bench::Bench;
use e2e::bench::measure::Samples;
use e2e::{Folder, Port};

use super::load::{Load, answers};
use super::stage::{Repo, Stage, server};

pub(super) async fn run(bench: &Bench, stage: &Stage) -> anyhow::Result<()> {
    bench.progress("deployments of a dependency-free application, and the gaps of their switches");
    let repo = Repo::app("first")?;
    stage.deployed(&repo).await?;
    let (mut took, mut gaps, mut starts) =
        (Samples::default(), Samples::default(), Samples::default());
    for run in 0..bench.runs.max(3) {
        starts.push(own_start()?.as_secs_f64() * 1000.0);
        repo.commit(&[("server.js", &server(&format!("run {run}")))])?;
        let load = Load::start(stage.port());
        let began = Instant::now();
        stage.deployed(&repo).await?;
        took.push(began.elapsed().as_secs_f64());
        gaps.push(load.end()?.gap.as_secs_f64() * 1000.0);
    }
    bench.print(format_args!("\nrequest to healthy, s             {}", took.spread()));
    bench.print(format_args!("no answer while switched, ms      {}", gaps.spread()));
    bench.print(format_args!("the application's own start, ms   {}", starts.spread()));
    // The slot is watched for a second after its switch: `settle`.
    bench.target("a deployment, beyond the second it is watched for, s", took.median() - 1.0, 2.0);
    bench.target("a switch's gap beyond the own start, ms", gaps.median() - starts.median(), 300.0);
    Ok(())
}

/// How long the application takes from its start to its first answer, without PM2.
fn own_start() -> anyhow::Result<Duration> {
    let (folder, port) = (Folder::new()?, Port::free()?);
    let script = folder.write("server.js", &server("own"))?;
    let began = Instant::now();
    let mut child = Command::new("node")
        .arg(script)
        .env("PORT", port.number().to_string())
        .stdin(Stdio::null())
        .spawn()?;
    while !answers(port.number()) && began.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(2));
    }
    let took = began.elapsed();
    child.kill()?;
    child.wait()?;
    ensure!(took < Duration::from_secs(30), "the application does not start");
    Ok(took)
}
