//! A poller of a simulated fleet, and what it uses over a stretch of time.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use e2e::bench::buckets::Buckets;
use e2e::bench::measure::mebibytes;
use e2e::sim::SimulatorProcess;
use e2e::{Client, Launch, Metrics, Program, SOON, process, wait_until};

/// From one poll of a server to the next, in seconds: the default of both programs.
pub(crate) const INTERVAL: f64 = 10.0;

/// The core of the poller, and that of everything else.
pub(crate) const OURS: usize = 0;
pub(crate) fn others() -> usize {
    std::thread::available_parallelism().map_or(0, |cores| cores.get() - 1)
}

/// Both, running.
pub(crate) struct Stage {
    pub(crate) servers: u32,
    pub(crate) poller: Program,
    pub(crate) simulator: SimulatorProcess,
    /// A token of an admin.
    pub(crate) admin: String,
    /// Sees one server and the poller's own metrics: a page of a size that does not disturb.
    narrow: Client,
}

/// What one stretch of time showed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    /// CPU a poll, in milliseconds.
    pub(crate) cpu_per_poll: f64,
    /// Part of a core.
    pub(crate) core: f64,
    /// MiB.
    pub(crate) resident: f64,
    /// How late polls began, in milliseconds, p99.
    pub(crate) late: f64,
    /// Part of the polls that were due and were not made, or failed.
    pub(crate) missed: f64,
    pub(crate) open_files: f64,
}

/// What a program said of itself, and what it had used by then.
pub(crate) struct Look {
    at: Instant,
    cpu: f64,
    polls: f64,
    good: f64,
    late: Buckets,
}

impl Stage {
    /// Starts both and waits until every server was polled; `fill` may put something into the
    /// folder of the poller first.
    pub(crate) async fn start(
        servers: u32,
        simulator: &[&str],
        more: &str,
        fill: impl AsyncFnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let launch = Launch::poller()?;
        fill(launch.folder().path()).await?;
        let mut arguments = vec!["--servers".to_owned(), servers.to_string()];
        arguments.extend(simulator.iter().map(|argument| (*argument).to_owned()));
        let simulator = SimulatorProcess::start(&arguments).await?;
        process::pin(simulator.pid(), others())?;
        let log = launch.folder().join("log");
        let text = format!("database = \"poller.db\"\n{more}\n{}", simulator.blocks()?);
        let launch = launch.configuration(&text)?.log_to(log);
        let path = launch.folder().join("configuration.toml").display().to_string();
        let admin = token(&path, "admin", &["--role", "admin"]).await?;
        let narrow = token(&path, "narrow", &["--role", "viewer", "--server", "vm0"]).await?;
        let poller = launch.start().await?;
        process::pin(poller.pid(), OURS)?;
        let narrow = Client::new(poller.launch().base())?.with_token(narrow);
        let stage = Self { servers, poller, simulator, admin, narrow };
        wait_until("every server is polled", SOON, async || {
            let look = stage.look().await.ok()?;
            (look.good >= f64::from(servers)).then_some(())
        })
        .await
        .with_context(|| stage.poller.stderr())?;
        // What the first polls left to do is done, and the second have begun.
        tokio::time::sleep(Duration::from_secs_f64(INTERVAL * 1.2)).await;
        Ok(stage)
    }

    async fn page(&self) -> anyhow::Result<Metrics> {
        Metrics::parse(&self.narrow.get("/metrics").await?.ok()?)
    }

    /// How it stands now.
    pub(crate) async fn look(&self) -> anyhow::Result<Look> {
        let page = self.page().await?;
        let late = Buckets::of(&page, "pm2_poller_poll_lateness_seconds");
        let all = page.all("pm2_poller_polls_total", &[]);
        let polls = all.iter().map(|series| series.value).sum();
        let good = page.value("pm2_poller_polls_total", &[("result", "success")])?;
        let cpu = self.cpu()?;
        Ok(Look { at: Instant::now(), cpu, polls, good, late })
    }

    /// CPU seconds used so far, by threads that have ended as well.
    pub(crate) fn cpu(&self) -> anyhow::Result<f64> {
        process::cpu_seconds(self.poller.pid()).context("the poller has ended")
    }

    /// What it used since.
    pub(crate) async fn since(&self, before: &Look) -> anyhow::Result<Used> {
        let after = self.look().await?;
        let seconds = (after.at - before.at).as_secs_f64();
        let due = f64::from(self.servers) * seconds / INTERVAL;
        let cpu = after.cpu - before.cpu;
        let polls = after.polls - before.polls;
        Ok(Used {
            cpu_per_poll: cpu * 1e3 / polls,
            core: cpu / seconds,
            resident: mebibytes(self.poller.pid(), "Rss")?,
            late: after.late.since(&before.late).percentile(0.99) * 1e3,
            missed: (1.0 - (after.good - before.good) / due).max(0.0),
            open_files: process::open_files(self.poller.pid()) as f64,
        })
    }

    /// The same over `window`.
    pub(crate) async fn over(&self, window: Duration) -> anyhow::Result<Used> {
        let before = self.look().await?;
        tokio::time::sleep(window).await;
        self.since(&before).await
    }
}

/// A new token.
async fn token(configuration: &str, name: &str, rights: &[&str]) -> anyhow::Result<String> {
    let mut arguments = vec!["token", "create", "--config", configuration, "--name", name];
    arguments.extend(rights);
    let ended = Launch::poller()?.with(&arguments).run().await?;
    anyhow::ensure!(ended.code == Some(0), "{arguments:?}: {}", ended.stderr);
    Ok(ended.stdout.lines().last().context("no token")?.to_owned())
}
