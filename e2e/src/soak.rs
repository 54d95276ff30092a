//! A poller that is used for long: whether its memory grows, and what it has open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::fleet::new_poller_token;
use crate::process;
use crate::program::Launch;
use crate::sim::SimulatorProcess;
use crate::wait::{SOON, wait_until};
use anyhow::Context;

/// How often descriptors and the log are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Memory is looked at so often in all, each time after nobody has used the poller for a moment: what
/// answers are made in comes and goes, and an hour of looks amidst that tells a slope to no less than
/// 0.7 MiB an hour.
const RESTS: u32 = 24;
const REST: Duration = Duration::from_secs(5);

/// How large, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Servers.
    pub servers: u32,
    /// Of polls.
    pub interval: Duration,
    /// For how long it is used, from when everything was polled a few times, before it is looked at.
    pub warm: Duration,
    /// For how long it is looked at then.
    pub time: Duration,
}

/// What was seen.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Resident memory in MiB while nobody used it, by time.
    pub resident: Vec<f64>,
    /// MiB an hour by which that grew.
    pub slope: f64,
    /// Standard error of that.
    pub error: f64,
    /// Least and most descriptors.
    pub descriptors: (usize, usize),
    /// Largest write-ahead log, in bytes.
    pub log: u64,
    /// Polls, and those that failed.
    pub polls: (f64, f64),
    /// Answers to those who used it, and those that were not 200 or 202.
    pub answers: (u64, u64),
}

/// Uses a poller of a simulated fleet as people and programs do: lists, pages, metrics, history,
/// commands, streams that come and go.
///
/// # Errors
/// Something does not run, or ends.
pub async fn run(settings: Settings) -> anyhow::Result<Outcome> {
    let arguments = [
        "--servers".to_owned(),
        settings.servers.to_string(),
        "--sample-interval".to_owned(),
        "1s".to_owned(),
        "--crash-every".to_owned(),
        "1m".to_owned(),
    ];
    let simulator = SimulatorProcess::start(&arguments).await?;
    let launch = Launch::poller()?;
    let log = launch.folder().join("log");
    let text = format!(
        "database = \"poller.db\"\npoll_interval = \"{}s\"\nanonymous_read = true\n{}",
        settings.interval.as_secs(),
        simulator.blocks()?
    );
    let launch = launch.configuration(&text)?.log_to(log);
    let configuration = launch.folder().join("configuration.toml").display().to_string();
    let token = new_poller_token(&configuration, "admin", "admin").await?;
    let poller = launch.start().await?;
    let client = Client::new(poller.launch().base())?.with_token(&token);
    let polls = async || -> anyhow::Result<(f64, f64)> {
        let page = client.get("/metrics").await?.ok()?;
        let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
        let lines = page.lines().filter(|line| line.starts_with("pm2_poller_polls_total{"));
        let (good, failed): (Vec<_>, Vec<_>) = lines.partition(|it| it.contains("\"success\""));
        let sum = |lines: Vec<&str>| lines.into_iter().filter_map(value).sum::<f64>();
        Ok((sum(good), sum(failed)))
    };
    let some = 3.0 * f64::from(settings.servers);
    wait_until("all are polled", SOON, async || (polls().await.ok()?.0 >= some).then_some(()))
        .await?;

    let counts = Arc::new(Counts::default());
    let using = tokio::spawn(used(client.clone(), settings.servers, Arc::clone(&counts)));
    let database = poller.launch().folder().join("poller.db-wal");
    let start = Instant::now();
    let mut looks: Vec<(f64, f64)> = Vec::new();
    let mut descriptors = Vec::new();
    let mut log = 0;
    // However slow the machine, somebody is to have used it.
    let used = || counts.all.load(Ordering::Relaxed) > 20;
    let end = settings.warm + settings.time;
    let mut next_rest = settings.warm;
    while start.elapsed() < end || (!used() && start.elapsed() < 10 * end) {
        tokio::time::sleep(LOOK.min(settings.time / 4)).await;
        anyhow::ensure!(!poller.has_ended(), "the poller has ended: {}", poller.stderr());
        anyhow::ensure!(!using.is_finished(), "nobody uses it any more");
        log = log.max(std::fs::metadata(&database).map_or(0, |file| file.len()));
        if start.elapsed() >= settings.warm {
            descriptors.push(process::open_files(poller.pid()));
        }
        if start.elapsed() >= next_rest {
            next_rest = start.elapsed() + settings.time / RESTS;
            counts.rests.store(true, Ordering::Relaxed);
            tokio::time::sleep(REST.min(settings.time / (2 * RESTS))).await;
            let resident = process::memory(poller.pid(), "Rss").context("no memory")?;
            counts.rests.store(false, Ordering::Relaxed);
            let hours = start.elapsed().as_secs_f64() / 3600.0;
            looks.push((hours, resident as f64 / f64::from(1 << 20)));
        }
    }
    let polls = polls().await?;
    using.abort();
    let answers = (counts.all.load(Ordering::Relaxed), counts.wrong.load(Ordering::Relaxed));
    let least = descriptors.iter().copied().min().context("no look at it")?;
    let (slope, error) = slope(&looks);
    Ok(Outcome {
        resident: looks.iter().map(|(_, resident)| *resident).collect(),
        slope,
        error,
        descriptors: (least, descriptors.iter().copied().max().unwrap_or(least)),
        log,
        polls,
        answers,
    })
}

#[derive(Debug, Default)]
struct Counts {
    all: AtomicU64,
    wrong: AtomicU64,
    /// Nobody is to use it now.
    rests: AtomicBool,
}

/// Asks for one thing after the other, for ever.
async fn used(client: Client, servers: u32, counts: Arc<Counts>) {
    let mut number = 0;
    loop {
        while counts.rests.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        number += 1;
        let server = number % servers;
        let path = match number % 8 {
            0 => "/".to_owned(),
            1 => "/api/servers".to_owned(),
            2 => "/metrics".to_owned(),
            3 => format!("/servers/vm{server}/apps/slot-a"),
            4 => format!("/api/servers/vm{server}/apps/slot-a/metrics?from=1h"),
            5 => "/api/events?limit=100".to_owned(),
            6 => {
                streams(&client, &counts).await;
                continue;
            }
            _ => {
                let path = format!("/api/commands/vm{server}/apps/slot-b/restart?wait=5s");
                count(&counts, client.post(&path).await.is_ok_and(|it| it.status <= 202));
                continue;
            }
        };
        count(&counts, client.get(&path).await.is_ok_and(|answer| answer.status == 200));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn count(counts: &Counts, good: bool) {
    counts.all.fetch_add(1, Ordering::Relaxed);
    if !good {
        counts.wrong.fetch_add(1, Ordering::Relaxed);
    }
}

/// Some who watch for a moment and go away without a word.
async fn streams(client: &Client, counts: &Counts) {
    let mut open = Vec::new();
    for _ in 0..10 {
        let request = client.request(reqwest::Method::GET, "/api/events/stream");
        let answer = request.send().await;
        count(counts, answer.as_ref().is_ok_and(|answer| answer.status() == 200));
        open.extend(answer);
    }
    if let Some(first) = open.first_mut() {
        let _ = tokio::time::timeout(Duration::from_millis(500), first.chunk()).await;
    }
}

/// How fast the second of each pair grows with the first (least squares), and its standard error.
fn slope(points: &[(f64, f64)]) -> (f64, f64) {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let above: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let below: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if below <= 0.0 {
        return (0.0, 0.0);
    }
    let slope = above / below;
    let left = |point: &(f64, f64)| (point.1 - y - slope * (point.0 - x)).powi(2);
    let left: f64 = points.iter().map(left).sum();
    (slope, (left / (count - 2.0).max(1.0) / below).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_slope() {
        let points: Vec<(f64, f64)> = (0..10).map(|x| (f64::from(x), f64::from(3 * x))).collect();
        let (grows, error) = slope(&points);
        assert!((grows - 3.0).abs() < 1e-9 && error < 1e-6);
        assert_eq!(slope(&[(1.0, 5.0)]), (0.0, 0.0));
    }

    #[test]
    fn what_comes_and_goes_is_told_as_an_error() {
        // Up and down by one MiB, 24 times in an hour.
        let look = |at: i32| (f64::from(at) / 24.0, 70.0 + f64::from(at % 2 * 2 - 1));
        let (grows, error) = slope(&(0..24).map(look).collect::<Vec<_>>());
        assert!(grows.abs() < error && (0.6..0.8).contains(&error), "{grows} {error}");
    }
}
