//! A thousand connections whose headers never end, at both programs and at node_exporter in the same run;
//! each answer comes over a connection of its own, from the same address.

use std::process::Command;
use std::time::{Duration, Instant};

use e2e::bench::Bench;
use e2e::bench::measure::{Samples, mebibytes};
use e2e::bench::table::Table;
use e2e::slowhttptest::SlowHeaders;
use e2e::{FakePm2, Folder, Foreign, Port, pm2_process, process, scene, wait_until};

const CONNECTIONS: u32 = 1000;
const TIME: Duration = Duration::from_secs(20);
/// A question that takes longer counts as so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// One who is attacked.
struct Attacked {
    pid: u32,
    url: String,
    token: Option<String>,
    quiet: Samples,
    took: Samples,
    failed: u32,
    memory: [f64; 2],
    files: [usize; 2],
}

impl Attacked {
    fn new(pid: u32, base: &str, token: Option<&str>) -> Self {
        Self {
            pid,
            url: format!("{base}/metrics"),
            token: token.map(str::to_owned),
            quiet: Samples::default(),
            took: Samples::default(),
            failed: 0,
            memory: [0.0; 2],
            files: [0; 2],
        }
    }

    /// Milliseconds to a whole answer; none where there is none.
    async fn ask(&self, http: &reqwest::Client) -> Option<f64> {
        let mut request = http.get(&self.url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let start = Instant::now();
        let answer = request.send().await.ok()?.error_for_status().ok()?;
        answer.bytes().await.ok()?;
        Some(start.elapsed().as_secs_f64() * 1e3)
    }

    fn look(&mut self) -> anyhow::Result<()> {
        self.memory[1] = self.memory[1].max(mebibytes(self.pid, "Rss")?);
        self.files[1] = self.files[1].max(process::open_files(self.pid));
        Ok(())
    }
}

pub(super) async fn run(bench: &Bench) -> anyhow::Result<()> {
    bench.progress(format_args!("{CONNECTIONS} slow connections"));
    let fake = FakePm2::start(pm2_process::processes(6))?;
    let exporter = scene::guarded_exporter(fake.home(), "").await?;
    let poller = scene::poller(&[], "").await?;
    let node = node_exporter().await?;
    let mut all = [
        Attacked::new(
            exporter.program.pid(),
            &exporter.program.launch().base(),
            Some(&exporter.token),
        ),
        Attacked::new(poller.program.pid(), &poller.program.launch().base(), Some(&poller.token)),
        Attacked::new(node.pid(), &node.client().url(""), None),
    ];
    let http = reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .timeout(PATIENCE)
        .build()?;
    for one in &mut all {
        for _ in 0..200 {
            if let Some(took) = one.ask(&http).await {
                one.quiet.push(took);
            }
        }
        one.memory[0] = mebibytes(one.pid, "Rss")?;
        one.files[0] = process::open_files(one.pid);
    }
    let begin = |one: &Attacked| SlowHeaders::begin(&one.url, CONNECTIONS, TIME);
    let mut attacks = all.iter().map(begin).collect::<anyhow::Result<Vec<SlowHeaders>>>()?;
    wait_until("the connections are there", PATIENCE, async || {
        let there = |one: &Attacked| process::open_files(one.pid) >= one.files[0] + 400;
        all.iter().all(there).then_some(())
    })
    .await?;
    let end = Instant::now() + TIME;
    while Instant::now() < end {
        for (one, attack) in all.iter_mut().zip(&mut attacks) {
            // It gives up where all of its connections were closed.
            if !attack.goes_on() {
                *attack = begin(one)?;
            }
            match one.ask(&http).await {
                Some(took) => one.took.push(took),
                None => {
                    one.failed += 1;
                    one.took.push(PATIENCE.as_secs_f64() * 1e3);
                }
            }
            one.look()?;
        }
    }
    let mut table = Table::new(
        format!("{CONNECTIONS} slow connections, /metrics"),
        &["exporter", "poller", "node_exporter"],
    );
    let row = |of: fn(&Attacked) -> f64| [of(&all[0]), of(&all[1]), of(&all[2])];
    table.row("before: p99, ms", row(|one| one.quiet.percentile(0.99)));
    table.row("p50, ms", row(|one| one.took.median()));
    table.row("p99, ms", row(|one| one.took.percentile(0.99)));
    table.row("memory before, MiB", row(|one| one.memory[0]));
    table.row("most memory, MiB", row(|one| one.memory[1]));
    table.count("answers", row(|one| one.took.len() as f64));
    table.count("without an answer", row(|one| f64::from(one.failed)));
    table.count("most files open", row(|one| one.files[1] as f64));
    bench.print(&table);
    for (name, one) in ["exporter", "poller"].into_iter().zip(&all) {
        bench.target(
            format!("{name}, {CONNECTIONS} slow connections: p99, ms"),
            one.took.percentile(0.99),
            500.0,
        );
        bench.target(
            format!("{name}, {CONNECTIONS} slow connections: memory they add, MiB"),
            one.memory[1] - one.memory[0],
            32.0,
        );
    }
    Ok(())
}

/// Debian's, with its own defaults.
async fn node_exporter() -> anyhow::Result<Foreign> {
    let port = Port::free()?;
    let mut command = Command::new("prometheus-node-exporter");
    command.arg(format!("--web.listen-address={}", port.address()));
    Foreign::start(command, (Folder::new()?, port), "/metrics", |it| it.status == 200).await
}
