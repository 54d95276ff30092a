//! CPU a request with a token and without, of a request that does little else, in turns.

use e2e::bench::Bench;
use e2e::bench::measure::{Samples, cpu};
use e2e::bench::table::Table;
use e2e::{Client, FakePm2, Launch, pm2_process, scene};
use serde_json::json;

/// Requests of one turn.
const REQUESTS: u32 = 10_000;
/// Tokens that are not the one that is shown.
const OTHERS: usize = 50;

pub(super) async fn run(bench: &Bench) -> anyhow::Result<()> {
    bench.progress("requests with a token and without");
    let mut table =
        Table::new("CPU a request, µs", &["without", "with a token", "the token"]).without_ratios();
    let exporter = exporter(bench).await?;
    let poller = poller(bench).await?;
    for (name, [without, with, token]) in [("exporter", exporter), ("poller", poller)] {
        table.row(name, [without, with, token]);
        bench.target(format!("{name}: token check a request, µs"), token, 20.0);
    }
    bench.print(&table);
    Ok(())
}

/// The medians of all turns: without a token, with one, and of what it adds.
async fn turns(
    bench: &Bench,
    pid: u32,
    path: &str,
    client: &Client,
    token: &str,
) -> anyhow::Result<[f64; 3]> {
    let with_token = client.with_token(token);
    let (mut without, mut with, mut more) =
        (Samples::default(), Samples::default(), Samples::default());
    // What is done once is done before.
    for_each(100, &with_token, path).await?;
    for _ in 0..bench.runs.max(5) {
        let mut used = [0.0; 2];
        for (used, client) in used.iter_mut().zip([client, &with_token]) {
            let before = cpu(pid)?;
            for_each(REQUESTS, client, path).await?;
            *used = (cpu(pid)? - before) * 1e6 / f64::from(REQUESTS);
        }
        without.push(used[0]);
        with.push(used[1]);
        more.push(used[1] - used[0]);
    }
    Ok([without.median(), with.median(), more.median()])
}

/// One after the other, on a connection that stays open.
async fn for_each(times: u32, client: &Client, path: &str) -> anyhow::Result<()> {
    for _ in 0..times {
        let answer = client.get(path).await?;
        anyhow::ensure!(answer.status < 500 && answer.status != 401, "{}", answer.text);
    }
    Ok(())
}

async fn exporter(bench: &Bench) -> anyhow::Result<[f64; 3]> {
    let fake = FakePm2::start(pm2_process::processes(6))?;
    let mut text = "anonymous_read = true\n".to_owned();
    for number in 0..OTHERS {
        text += &scene::exporter_token(&format!("other-{number}"), &["read"])?.1;
    }
    let (token, block) = scene::exporter_token("asks", &["read"])?;
    let launch = Launch::exporter()?.pm2_home(fake.home()).configuration(&(text + &block))?;
    let exporter = launch.start().await?;
    let client = Client::new(exporter.launch().base())?;
    turns(bench, exporter.pid(), "/api/commands/none", &client, &token).await
}

async fn poller(bench: &Bench) -> anyhow::Result<[f64; 3]> {
    let poller = scene::poller(&[], "anonymous_read = true").await?;
    for number in 0..OTHERS {
        let body = json!({"name": format!("other-{number}"), "role": "viewer"});
        let request = poller.admin.request(reqwest::Method::POST, "/api/tokens").json(&body);
        poller.admin.send(request).await?;
    }
    let client = Client::new(poller.program.launch().base())?;
    turns(bench, poller.program.pid(), "/api/me", &client, &poller.token).await
}
