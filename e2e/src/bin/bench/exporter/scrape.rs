//! What a scrape takes, and what is used while nobody asks.

use std::time::{Duration, Instant};

use anyhow::Context;
use e2e::bench::Bench;
use e2e::bench::measure::{Samples, at_rest, cpu, mebibytes};
use e2e::bench::table::Table;
use e2e::{Client, Launch, Pm2, SOON, pm2_metrics, scene};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// As Prometheus asks.
const GZIP: &str = "accept-encoding: gzip\r\naccept: application/openmetrics-text;version=1.0.0;q=0.5,\
    text/plain;version=0.0.4;q=0.3\r\n";
/// As curl asks.
const PLAIN: &str = "accept: */*\r\n";
/// Batches of scrapes of each, in turns.
const ROUNDS: usize = 20;
const BATCH: usize = 50;

/// What is to be reached at most.
#[derive(Clone, Copy)]
pub(super) struct Targets {
    /// Resident memory in MiB.
    pub(super) memory: f64,
    /// CPU a scrape, daemon and exporter together, as a part of pm2-metrics'.
    pub(super) cpu: f64,
    /// Median of a scrape, as a part of pm2-metrics'.
    pub(super) p50: f64,
    /// Percent of a core while nobody asks.
    pub(super) rest: f64,
}

/// Compares at this many processes.
///
/// # Errors
/// Something does not run or does not answer.
pub(super) async fn run(bench: &Bench, processes: usize, targets: Targets) -> anyhow::Result<()> {
    let pm2 = Pm2::start().await?;
    let apps = (0..processes)
        .map(|number| -> Value { json!({"name": format!("web-{number}"), "script": "web.js"}) });
    pm2.start_apps(apps.collect()).await?;
    bench.progress(format_args!("{processes} Node.js processes under PM2"));
    let daemon = pm2.daemon()?;
    reporting(&pm2, processes).await?;
    let theirs = pm2_metrics::start(pm2.home(), pm2.mark()).await?;
    let ours = scene::exporter(pm2.home()).await?;
    let anew = Launch::exporter()?
        .pm2_home(pm2.home())
        .configuration("custom_metrics_max_age = \"0\"")?
        .start()
        .await?;
    only_daemon(&pm2, daemon)?;
    for client in [ours.client(), anew.client()] {
        scene::wait_for_instances(client, "web-0", wire::Status::Online, 1).await?;
    }
    let mut subjects = [
        Subject::new("pm2-exporter", ours.client(), ours.pid(), processes, GZIP).await?,
        Subject::new("without gzip", ours.client(), ours.pid(), processes, PLAIN).await?,
        Subject::new("nothing cached", anew.client(), anew.pid(), processes, GZIP).await?,
        Subject::new("npm pm2-metrics", theirs.client(), theirs.pid(), processes, GZIP).await?,
    ];
    bench.progress(format_args!("{:?} of rest", bench.rest));
    let mut pids: Vec<u32> = subjects.iter().map(|subject| subject.pid).collect();
    pids.push(daemon);
    let resting = at_rest(&pids, bench.rest).await?;
    let resting_daemon = resting.last().copied().unwrap_or_default();
    for subject in &mut subjects {
        subject.warm_up().await?;
    }
    bench.progress(format_args!("{} scrapes of each", ROUNDS * BATCH));
    for round in 0..ROUNDS {
        // Nobody is always first.
        let first = round % subjects.len();
        for place in 0..subjects.len() {
            let at = (first + place) % subjects.len();
            subjects[at].batch(daemon, resting_daemon).await?;
        }
    }
    only_daemon(&pm2, daemon)?;
    tell(bench, &subjects, &resting, processes, targets)?;
    if processes >= 60 {
        whole_state(bench, ours.client(), processes).await?;
    }
    for program in [ours, anew] {
        program.stop(Duration::from_secs(5)).await?;
    }
    Ok(())
}

fn tell(
    bench: &Bench,
    subjects: &[Subject; 4],
    resting: &[f64],
    processes: usize,
    targets: Targets,
) -> anyhow::Result<()> {
    let names: Vec<&str> = subjects.iter().map(|subject| subject.name).collect();
    let mut table = Table::new(format!("{processes} processes"), &names);
    let mut figures = |name: &str, figure: fn(&Subject) -> anyhow::Result<f64>| {
        let values = subjects.iter().map(figure).collect::<anyhow::Result<Vec<_>>>()?;
        table.row(name, values.iter().copied());
        anyhow::Ok(values)
    };
    let p50 = figures("/metrics p50, ms", |subject| Ok(subject.seconds.median() * 1e3))?;
    let p99 = figures("/metrics p99, ms", |subject| Ok(subject.seconds.percentile(0.99) * 1e3))?;
    figures("memory, PSS, MiB", |subject| mebibytes(subject.pid, "Pss"))?;
    let rss = figures("memory, RSS, MiB", |subject| mebibytes(subject.pid, "Rss"))?;
    figures("CPU a scrape, exporter, ms", |subject| Ok(subject.own_cpu_per_scrape()))?;
    figures("CPU a scrape, PM2 daemon, ms", |subject| Ok(subject.daemon_cpu_per_scrape()))?;
    let cpu = figures("CPU a scrape, together, ms", |subject| {
        Ok(subject.own_cpu_per_scrape() + subject.daemon_cpu_per_scrape())
    })?;
    table.row("at rest, exporter, % of a core", resting.iter().take(4).map(|used| used * 100.0));
    table.count("scrapes", subjects.iter().map(|subject| subject.seconds.len() as f64));
    bench.print(&table);
    bench.target(format!("{processes} processes: resident memory, MiB"), rss[0], targets.memory);
    // pm2-metrics never packs its page, whoever asks.
    for (how, at) in [("plain", 1), ("gzip", 0)] {
        let part = format!("{processes} processes: CPU a scrape, {how}, part of pm2-metrics'");
        bench.target(part, cpu[at] / cpu[3], targets.cpu);
        let part = format!("{processes} processes: /metrics p50, {how}, part of pm2-metrics'");
        bench.target(part, p50[at] / p50[3], targets.p50);
    }
    let rest = format!("{processes} processes: at rest, % of a core");
    bench.target(rest, resting.first().copied().unwrap_or(f64::NAN) * 100.0, targets.rest);
    if processes >= 60 {
        bench.target(format!("{processes} processes: /metrics p99, ms"), p99[0], 10.0);
    }
    Ok(())
}

/// How long everything as JSON takes.
async fn whole_state(bench: &Bench, client: &Client, processes: usize) -> anyhow::Result<()> {
    let mut state = Asker::new(client, "/api/state", PLAIN).await?;
    let mut seconds = Samples::default();
    for _ in 0..500 {
        seconds.push(state.ask().await?);
    }
    let p99 = seconds.percentile(0.99) * 1e3;
    bench.print(format_args!("/api/state: p50 {:.3} ms, p99 {p99:.3} ms", seconds.median() * 1e3));
    bench.target(format!("{processes} processes: /api/state p99, ms"), p99, 50.0);
    Ok(())
}

/// Waits until all processes report what Node.js measures itself, which comes some seconds
/// after their start; the daemon is at rest only then.
async fn reporting(pm2: &Pm2, count: usize) -> anyhow::Result<()> {
    e2e::wait_until("custom metrics", SOON, async || {
        let processes = pm2.processes().ok()?;
        let reports = |process: &Value| {
            process["pm2_env"]["axm_monitor"].as_object().is_some_and(|all| !all.is_empty())
        };
        (processes.len() == count && processes.iter().all(reports)).then_some(())
    })
    .await
}

/// pm2-metrics brings a PM2 of its own along, and must not have started it.
fn only_daemon(pm2: &Pm2, daemon: u32) -> anyhow::Result<()> {
    let daemons: Vec<u32> = pm2
        .running()
        .into_iter()
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("God Daemon")
        })
        .collect();
    anyhow::ensure!(daemons == [daemon], "daemons {daemons:?}, expected {daemon} alone");
    Ok(())
}

/// Asks one thing again and again on a connection that stays. The bytes are taken and not looked at: what
/// a client does with them is not what is measured.
struct Asker {
    stream: TcpStream,
    request: String,
    buffer: Vec<u8>,
}

impl Asker {
    async fn new(client: &Client, path: &str, headers: &str) -> anyhow::Result<Self> {
        let address = client.url("").trim_start_matches("http://").to_owned();
        Ok(Self {
            stream: TcpStream::connect(&address).await?,
            request: format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n{headers}\r\n"),
            buffer: Vec::with_capacity(1 << 20),
        })
    }

    async fn ask(&mut self) -> anyhow::Result<f64> {
        let start = Instant::now();
        self.stream.write_all(self.request.as_bytes()).await?;
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await?;
            anyhow::ensure!(read > 0, "the connection was ended");
            if is_whole(&self.buffer) {
                break;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        anyhow::ensure!(self.buffer.starts_with(b"HTTP/1.1 200"), "it is refused");
        Ok(seconds)
    }
}

/// One of those compared.
struct Subject {
    name: &'static str,
    client: Client,
    headers: &'static str,
    asker: Option<Asker>,
    pid: u32,
    seconds: Samples,
    own_cpu: f64,
    daemon_cpu: f64,
}

impl Subject {
    async fn new(
        name: &'static str,
        client: &Client,
        pid: u32,
        processes: usize,
        headers: &'static str,
    ) -> anyhow::Result<Self> {
        // That it shows all of them is looked at once.
        let page = client.get("/metrics").await?.ok().context(name)?;
        let is_up =
            |line: &&str| line.starts_with("pm2_process_up{") || line.starts_with("pm2_up{");
        let up = page.lines().filter(is_up).count();
        anyhow::ensure!(up == processes, "{name} shows {up}: {page}");
        Ok(Self {
            name,
            client: client.clone(),
            headers,
            asker: None,
            pid,
            seconds: Samples::default(),
            own_cpu: 0.0,
            daemon_cpu: 0.0,
        })
    }

    async fn scrape(&mut self) -> anyhow::Result<f64> {
        let asker = match &mut self.asker {
            Some(asker) => asker,
            none => none.insert(Asker::new(&self.client, "/metrics", self.headers).await?),
        };
        asker.ask().await.context(self.name)
    }

    async fn warm_up(&mut self) -> anyhow::Result<()> {
        for _ in 0..BATCH {
            self.scrape().await?;
        }
        Ok(())
    }

    /// `resting` is what the daemon uses by itself, in CPU seconds a second.
    async fn batch(&mut self, daemon: u32, resting: f64) -> anyhow::Result<()> {
        let start = Instant::now();
        let (own, daemons) = (cpu(self.pid)?, cpu(daemon)?);
        for _ in 0..BATCH {
            let seconds = self.scrape().await?;
            self.seconds.push(seconds);
        }
        self.own_cpu += cpu(self.pid)? - own;
        self.daemon_cpu += cpu(daemon)? - daemons - resting * start.elapsed().as_secs_f64();
        Ok(())
    }

    /// In milliseconds.
    fn own_cpu_per_scrape(&self) -> f64 {
        self.own_cpu * 1e3 / self.seconds.len() as f64
    }

    /// In milliseconds.
    fn daemon_cpu_per_scrape(&self) -> f64 {
        self.daemon_cpu * 1e3 / self.seconds.len() as f64
    }
}

/// Whether an answer has come to its end, of which both forms say where it is.
fn is_whole(bytes: &[u8]) -> bool {
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    match length.and_then(|length| length.trim().parse::<usize>().ok()) {
        Some(length) => bytes.len() >= head + 4 + length,
        None => bytes.ends_with(b"\r\n0\r\n\r\n"),
    }
}
