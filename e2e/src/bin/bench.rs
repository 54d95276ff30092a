//! `make bench`: the exporter beside npm `pm2-metrics`, at the same daemon, in the same run.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context;
use e2e::process::{cpu_seconds_of_threads, memory};
use e2e::{Client, Launch, Pm2, Pm2Metrics, Program, process, scene};
use serde_json::{Value, json};

const PROCESSES: usize = 6;
/// Batches of scrapes of each, in turns.
const ROUNDS: usize = 20;
const BATCH: usize = 50;
/// How long nothing is asked, to see what each uses at rest.
const REST: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let pm2 = Pm2::start().await?;
    let apps = (0..PROCESSES)
        .map(|number| -> Value { json!({"name": format!("web-{number}"), "script": "web.js"}) });
    pm2.start_apps(apps.collect()).await?;
    eprintln!(
        "bench: {PROCESSES} Node.js processes under PM2 7.0.4; this takes about four minutes"
    );

    let daemon = pm2.daemon()?;
    // What Node.js itself reports comes some seconds after the start of a process; the daemon
    // is at rest only then.
    e2e::wait_until("custom metrics", Duration::from_secs(30), async || {
        let processes = pm2.processes().ok()?;
        let reports = |process: &Value| {
            process["pm2_env"]["axm_monitor"].as_object().is_some_and(|all| !all.is_empty())
        };
        (processes.len() == PROCESSES && processes.iter().all(reports)).then_some(())
    })
    .await?;
    // Each is started alone, so that what the daemon does for it is known as well.
    let mut resting = vec![rest(daemon).await?];
    let theirs = Pm2Metrics::start(pm2.home(), pm2.mark()).await?;
    resting.push(rest(daemon).await?);
    let ours = scene::exporter(pm2.home()).await?;
    resting.push(rest(daemon).await?);
    let anew = Launch::exporter()?
        .pm2_home(pm2.home())
        .configuration("custom_metrics_max_age = \"0\"")?
        .start()
        .await?;
    resting.push(rest(daemon).await?);
    only_daemon(&pm2, daemon)?;
    for client in [ours.client(), anew.client()] {
        scene::wait_for_instances(client, "web-0", wire::Status::Online, 1).await?;
    }

    let mut subjects = [
        Subject::new("pm2-exporter", ours.client(), ours.pid(), resting[2] - resting[1]),
        Subject::new(
            "pm2-exporter, nothing cached",
            anew.client(),
            anew.pid(),
            resting[3] - resting[2],
        ),
        Subject::new("npm pm2-metrics", theirs.client(), theirs.pid(), resting[1] - resting[0]),
    ];
    let before: Vec<f64> =
        subjects.iter().map(|subject| cpu(subject.pid)).collect::<anyhow::Result<_>>()?;
    let resting = rest(daemon).await?;
    for (subject, before) in subjects.iter_mut().zip(before) {
        subject.resting = (cpu(subject.pid)? - before) / REST.as_secs_f64();
    }
    for subject in &subjects {
        subject.warm_up().await?;
    }
    for round in 0..ROUNDS {
        // Nobody is always first.
        let first = round % subjects.len();
        for place in 0..subjects.len() {
            let at = (first + place) % subjects.len();
            subjects[at].batch(daemon, resting).await?;
        }
    }
    only_daemon(&pm2, daemon)?;
    let table = table(&subjects)?;
    std::io::stdout().write_all(table.as_bytes())?;
    end(ours, anew).await
}

async fn end(ours: Program, anew: Program) -> anyhow::Result<()> {
    for program in [ours, anew] {
        program.stop(Duration::from_secs(5)).await?;
    }
    Ok(())
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

/// One of those compared.
struct Subject {
    name: &'static str,
    client: Client,
    pid: u32,
    seconds: Vec<f64>,
    own_cpu: f64,
    daemon_cpu: f64,
    resting: f64,
    resting_daemon: f64,
}

impl Subject {
    /// `resting_daemon` is what the daemon uses more, in CPU seconds a second, since it is there.
    fn new(name: &'static str, client: &Client, pid: u32, resting_daemon: f64) -> Self {
        Self {
            name,
            client: client.clone(),
            pid,
            seconds: Vec::new(),
            own_cpu: 0.0,
            daemon_cpu: 0.0,
            resting: 0.0,
            resting_daemon,
        }
    }

    async fn scrape(&self) -> anyhow::Result<f64> {
        let start = Instant::now();
        let answer = self.client.get("/metrics").await?;
        let seconds = start.elapsed().as_secs_f64();
        let page = answer.ok()?;
        let up = page
            .lines()
            .filter(|line| line.starts_with("pm2_process_up{") || line.starts_with("pm2_up{"));
        anyhow::ensure!(up.count() == PROCESSES, "{} does not show {PROCESSES}: {page}", self.name);
        Ok(seconds)
    }

    async fn warm_up(&self) -> anyhow::Result<()> {
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

    /// Milliseconds below which this share of the scrapes was.
    fn percentile(&self, share: f64) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let index = (sorted.len() as f64 * share) as usize;
        sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN) * 1e3
    }

    /// CPU milliseconds a scrape: of its own, of the daemon.
    fn cpu_per_scrape(&self) -> (f64, f64) {
        let scrapes = self.seconds.len() as f64;
        (self.own_cpu * 1e3 / scrapes, self.daemon_cpu * 1e3 / scrapes)
    }

    fn memory(&self, line: &str) -> anyhow::Result<f64> {
        Ok(memory(self.pid, line).context("no memory")? as f64 / f64::from(1 << 20))
    }
}

fn cpu(pid: u32) -> anyhow::Result<f64> {
    cpu_seconds_of_threads(pid).with_context(|| format!("process {pid} is gone"))
}

/// What the daemon uses while nobody asks, in CPU seconds a second.
async fn rest(daemon: u32) -> anyhow::Result<f64> {
    let (start, before) = (Instant::now(), cpu(daemon)?);
    tokio::time::sleep(REST).await;
    Ok((cpu(daemon)? - before) / start.elapsed().as_secs_f64())
}

type Column = fn(&Subject) -> anyhow::Result<f64>;

fn table(subjects: &[Subject]) -> anyhow::Result<String> {
    let [ours, anew, theirs] = subjects else { anyhow::bail!("three are compared") };
    let rows: [(&str, Column); 10] = [
        ("/metrics p50, ms", |subject| Ok(subject.percentile(0.50))),
        ("/metrics p99, ms", |subject| Ok(subject.percentile(0.99))),
        ("memory, PSS, MiB", |subject| subject.memory("Pss")),
        ("memory, RSS, MiB", |subject| subject.memory("Rss")),
        ("CPU a scrape, exporter, ms", |subject| Ok(subject.cpu_per_scrape().0)),
        ("CPU a scrape, PM2 daemon, ms", |subject| Ok(subject.cpu_per_scrape().1)),
        ("CPU a scrape, together, ms", together),
        ("at rest, exporter, ms/min", |subject| Ok(subject.resting * 60e3)),
        ("at rest, daemon's more, ms/min", |subject| Ok(subject.resting_daemon * 60e3)),
        ("scrapes", |subject| Ok(subject.seconds.len() as f64)),
    ];
    let mut out = String::new();
    write!(out, "\n{:<30}", "")?;
    for subject in subjects {
        write!(out, "{:>30}", subject.name)?;
    }
    writeln!(out, "{:>10}{:>10}", "ratio", "uncached")?;
    for (name, column) in rows {
        write!(out, "{name:<30}")?;
        let values: Vec<f64> = subjects.iter().map(column).collect::<anyhow::Result<_>>()?;
        for value in &values {
            write!(out, "{value:>30.3}")?;
        }
        if name != "scrapes" {
            write!(out, "{:>10.3}{:>10.3}", values[0] / values[2], values[1] / values[2])?;
        }
        writeln!(out)?;
    }
    writeln!(
        out,
        "\nEach was asked in turns, {BATCH} scrapes at a time. 'Nothing cached' asks the daemon \
         for its\ncustom metrics at every scrape, as happens when scrapes come further apart than\n\
         custom_metrics_max_age (10s); otherwise they are at most that old. What the daemon uses \
         at rest\nis not counted in its part of a scrape; what it uses more at rest is within \
         the noise of one run.\n"
    )?;
    let minute = |subject: &Subject, scraped: f64| (subject.resting * 60e3) + 4.0 * scraped;
    let (us, them) = (minute(ours, together(anew)?), minute(theirs, together(theirs)?));
    writeln!(
        out,
        "Scraped every 15 s, exporter and daemon together: {us:.1} ms of CPU a minute beside \
         {them:.1} ms, ratio {:.3}\n",
        us / them
    )?;
    let targets = [
        ("resident memory at most a sixth", ours.memory("Pss")? / theirs.memory("Pss")?, 1.0 / 6.0),
        ("CPU a scrape at most a quarter", together(ours)? / together(theirs)?, 0.25),
        ("p50 no worse", ours.percentile(0.5) / theirs.percentile(0.5), 1.0),
    ];
    for (name, ratio, most) in targets {
        let verdict = if ratio <= most { "reached" } else { "NOT reached" };
        writeln!(out, "{name:<34}{ratio:>8.3} of {most:.3}  {verdict}")?;
    }
    Ok(out)
}

fn together(subject: &Subject) -> anyhow::Result<f64> {
    let (own, daemons) = subject.cpu_per_scrape();
    anyhow::ensure!(process::is_alive(subject.pid), "{} has ended", subject.name);
    Ok(own + daemons)
}
