//! What Prometheus asks of a page of metrics, in every state, of both programs.

use std::time::Duration;

use anyhow::{Context, Result};
use e2e::prometheus::check_metrics;
use e2e::scene::{self, Server, metrics};
use e2e::{Answer, Client, FakePm2, Folder, Mode, SOON, pm2_process, wait_until};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// As Prometheus 2.42 asks.
const ACCEPT: &str = "application/openmetrics-text;version=1.0.0;q=0.5,\
    application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

async fn page(client: &Client, accept: &str) -> Result<Answer> {
    let request = client.request(reqwest::Method::GET, "/metrics").header("accept", accept);
    client.send(request).await
}

async fn is_well_formed(client: &Client) -> Result<()> {
    let text = page(client, "text/plain").await?;
    assert!(text.header("content-type").starts_with("text/plain; version=0.0.4"));
    let text = text.ok()?;
    check_metrics(&text)?;
    e2e::Metrics::parse(&text)?;
    let open = page(client, ACCEPT).await?;
    assert!(open.header("content-type").starts_with("application/openmetrics-text; version=1.0.0"));
    let open = open.ok()?;
    assert!(open.ends_with("# EOF\n"));
    if let Some(count) = e2e::openmetrics::samples(&open)? {
        assert_eq!(count, open.lines().filter(|line| !line.starts_with('#')).count());
    }
    Ok(())
}

async fn wait_for_processes(client: &Client, count: usize) -> Result<()> {
    wait_until(&format!("{count} processes are shown"), SOON, async || {
        let page = metrics(client).await.ok()?;
        (page.all("pm2_process_up", &[]).len() == count).then_some(())
    })
    .await
}

#[tokio::test]
async fn promtool_likes_the_exporter_in_every_state() -> Result<()> {
    let nowhere = Folder::new()?;
    let down = scene::exporter(nowhere.path()).await?;
    is_well_formed(down.client()).await.context("PM2 down")?;

    let fake = FakePm2::start(Vec::new())?;
    let exporter = scene::exporter(fake.home()).await?;
    wait_until("PM2 answers", SOON, async || {
        let page = metrics(exporter.client()).await.ok()?;
        (page.value("pm2_up", &[]).ok()? == 1.0).then_some(())
    })
    .await?;
    is_well_formed(exporter.client()).await.context("no process")?;

    // Enough to fill a page, and odd enough to break it.
    let mut processes = pm2_process::processes(500);
    let odd = ["\"quoted\"", "back\\slash", "ünï", "a{b=\"c\"}", "name with, comma", " "];
    for (process, name) in processes.iter_mut().zip(odd) {
        process["name"] = name.into();
        process["pm2_env"]["name"] = name.into();
    }
    let monitor = &mut processes[10]["pm2_env"]["axm_monitor"];
    monitor["Orders \"open\"\n"] = serde_json::json!({"value": 3, "unit": "a\\b"});
    monitor["Orders \"open\" "] = serde_json::json!({"value": 4});
    monitor["not a number"] = serde_json::json!({"value": "n/a"});
    monitor["infinite"] = serde_json::json!({"value": "1e999"});
    let fake = FakePm2::start(processes)?;
    let exporter = scene::exporter(fake.home()).await?;
    wait_for_processes(exporter.client(), 500).await?;
    is_well_formed(exporter.client()).await.context("500 processes")?;

    fake.set_mode(Mode::Refuses)?;
    wait_for_processes(exporter.client(), 0).await?;
    is_well_formed(exporter.client()).await.context("PM2 lost")
}

#[tokio::test]
async fn promtool_likes_the_poller_in_every_state() -> Result<()> {
    let empty = scene::poller(&[], "").await?;
    is_well_formed(&empty.admin).await.context("no server")?;

    let fake = FakePm2::start(pm2_process::processes(100))?;
    let exporter = scene::exporter(fake.home()).await?;
    let nowhere = e2e::Port::free()?;
    let servers = [
        Server::open("vm1", exporter.launch().base()),
        Server::open("vm2", format!("http://{}", nowhere.address())),
    ];
    let poller = scene::poller(&servers, "").await?;
    is_well_formed(&poller.admin).await.context("before the first poll")?;
    wait_for_processes(&poller.admin, 100).await?;
    is_well_formed(&poller.admin).await.context("one up, one down")?;
    let page = poller
        .metrics_with("one is up", |page| {
            page.value("pm2_server_up", &[("server", "vm1")]).is_ok_and(|up| up == 1.0)
        })
        .await?;
    assert_eq!(page.value("pm2_server_up", &[("server", "vm2")])?, 0.0);
    assert!(page.value("pm2_server_last_success_timestamp_seconds", &[("server", "vm1")])? > 1.7e9);
    assert!(page.has("pm2_server_poll_duration_seconds", &[("server", "vm1")]));
    assert!(page.has("pm2_server_info", &[("server", "vm1")]));
    for series in page.iter().filter(|series| series.name.starts_with("pm2_process_")) {
        assert_eq!(series.labels.get("server").map(String::as_str), Some("vm1"), "{series:?}");
    }

    drop(exporter);
    wait_for_processes(&poller.admin, 0).await?;
    is_well_formed(&poller.admin).await.context("all down")
}

#[tokio::test]
async fn gzip_is_given_to_those_who_ask() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(50))?;
    let exporter = scene::exporter(fake.home()).await?;
    let address = exporter.client().url("/metrics");
    wait_for_processes(exporter.client(), 50).await?;
    // A client that does not take gzip apart by itself.
    service::tls::install();
    let plain = reqwest::Client::builder().no_gzip().no_proxy().build()?;
    let zipped = plain.get(&address).header("accept-encoding", "gzip").send().await?;
    assert_eq!(zipped.headers()["content-encoding"], "gzip");
    let zipped = zipped.bytes().await?;
    assert_eq!(zipped[..2], [0x1f, 0x8b]);
    let whole = plain.get(&address).send().await?;
    assert!(!whole.headers().contains_key("content-encoding"));
    let whole = whole.bytes().await?;
    assert!(zipped.len() * 4 < whole.len(), "{} of {}", zipped.len(), whole.len());
    Ok(())
}

#[tokio::test]
async fn long_pages_of_the_journal_are_packed_and_usual_ones_are_not() -> Result<()> {
    service::tls::install();
    let plain = reqwest::Client::builder().no_gzip().no_proxy().build()?;
    let unpacking = reqwest::Client::builder().gzip(true).no_proxy().build()?;
    for (processes, is_long) in [(6, false), (400, true)] {
        let fake = FakePm2::start(pm2_process::processes(u32::try_from(processes)?))?;
        let exporter = scene::exporter(fake.home()).await?;
        wait_for_processes(exporter.client(), processes).await?;
        let address = exporter.client().url("/api/journal");
        let sent = plain.get(&address).header("accept-encoding", "gzip").send().await?;
        assert_eq!(sent.headers().contains_key("content-encoding"), is_long, "{processes}");
        assert_eq!(sent.headers()["content-type"], "application/json");
        let sent = sent.bytes().await?;
        let page: Value = unpacking.get(&address).send().await?.json().await?;
        let known = page["state"]["processes"].as_array().context("processes")?.len();
        assert_eq!(known, processes);
        let whole = plain.get(&address).send().await?.bytes().await?;
        assert_eq!(sent.len() * 4 < whole.len(), is_long, "{} of {}", sent.len(), whole.len());
    }
    Ok(())
}

#[tokio::test]
async fn twenty_scrapes_at_once_cause_one_read() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(6))?;
    let launch = e2e::Launch::exporter()?
        .pm2_home(fake.home())
        // Every scrape wants metrics that only the daemon has, as new as can be; no sample does
        // meanwhile.
        .configuration("custom_metrics_max_age = \"0\"\nsample_interval = \"1h\"")?;
    let exporter = launch.start().await?;
    wait_for_processes(exporter.client(), 6).await?;

    // What the exporter asks by itself after a start is over.
    let seen = std::cell::Cell::new(0);
    wait_until("the daemon is left alone", SOON, async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let calls = fake.monitor_calls();
        (seen.replace(calls) == calls).then_some(())
    })
    .await?;
    fake.set_mode(Mode::Slow(Duration::from_secs(3)))?;
    let before = fake.monitor_calls();
    // All have said everything but their last byte before the first says that: they come together
    // however busy the machine is.
    let address = exporter.client().url("").replace("http://", "");
    let mut scrapes = Vec::new();
    for _ in 0..20 {
        let mut scrape = TcpStream::connect(&address).await?;
        scrape.set_nodelay(true)?;
        scrape
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r")
            .await?;
        scrapes.push(scrape);
    }
    for scrape in &scrapes {
        assert_eq!(scrape.try_write(b"\n")?, 1);
    }
    for mut scrape in scrapes {
        let mut page = String::new();
        scrape.read_to_string(&mut page).await?;
        assert!(page.contains("pm2_process_up"), "{page}");
    }
    assert_eq!(fake.monitor_calls() - before, 1);
    Ok(())
}

#[tokio::test]
async fn a_scrape_within_the_age_allowed_asks_the_daemon_for_nothing() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(6))?;
    let exporter = scene::exporter(fake.home()).await?;
    wait_for_processes(exporter.client(), 6).await?;
    let before = fake.monitor_calls();
    let scrapes = (0..20).map(|_| {
        let client = exporter.client().clone();
        tokio::spawn(async move { client.get("/metrics").await?.ok() })
    });
    let scrapes: Vec<_> = scrapes.collect();
    for scrape in scrapes {
        scrape.await??;
    }
    let reads = fake.monitor_calls() - before;
    assert!(reads <= 1, "{reads} reads for 20 scrapes at once");
    Ok(())
}
