//! X11: a thousand connections whose requests never end, by Debian's slowhttptest. They come from the same
//! address as those who really ask, which is worse than any other.

use std::time::{Duration, Instant};

use anyhow::Result;
use e2e::scene;
use e2e::slowhttptest::SlowHeaders;
use e2e::{Client, FakePm2, Program, SOON, pm2_process, process, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Of one address, at most.
const CAP: usize = 512;
const MEBIBYTE: u64 = 1 << 20;

async fn stands(program: &Program, token: &str) -> Result<()> {
    let base = program.launch().base();
    let memory = || process::memory(program.pid(), "Rss").unwrap_or(u64::MAX);
    let (before, files) = (memory(), process::open_files(program.pid()));
    let url = format!("{base}/metrics");
    let mut attack = SlowHeaders::begin(&url, 1000, Duration::from_secs(120))?;
    wait_until("its connections are there", SOON, async || {
        (process::open_files(program.pid()) >= files + CAP / 2).then_some(())
    })
    .await
    .map_err(|error| error.context(attack.report()))?;
    let (mut asked, mut most_files, mut most_memory) = (0, 0, 0);
    let begun = Instant::now();
    while attack.goes_on() && (asked < 5 || begun.elapsed() < Duration::from_secs(8)) {
        // A connection of its own each time: those that are there already are in nobody's way.
        Client::new(&base)?.with_token(token).get("/metrics").await?.ok()?;
        asked += 1;
        most_files = most_files.max(process::open_files(program.pid()));
        most_memory = most_memory.max(memory());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(asked >= 5, "{asked}: {}", attack.report());
    // Those that were displaced close a moment later.
    assert!(most_files <= files + CAP + CAP / 2, "{most_files} files, {files} before");
    let more = most_memory.saturating_sub(before) / MEBIBYTE;
    assert!(more < 48, "{more} MiB more");

    drop(attack);

    // One that nobody displaces: a header a second keeps no connection open.
    let mut slow = TcpStream::connect(program.launch().address()).await?;
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n").await?;
    let (mut from, mut to) = slow.into_split();
    let drip = async {
        while to.write_all(b"X-a: b\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let mut answer = Vec::new();
    let end = async { _ = from.read_to_end(&mut answer).await };
    let cut_off = async {
        tokio::select! { () = drip => {}, () = end => {} }
    };
    assert!(tokio::time::timeout(SOON, cut_off).await.is_ok(), "it is kept open");
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "it was answered");
    Ok(())
}

#[tokio::test]
async fn a_thousand_slow_connections_keep_nobody_from_the_exporter() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(3))?;
    let exporter = scene::guarded_exporter(fake.home(), "").await?;
    stands(&exporter.program, &exporter.token).await
}

#[tokio::test]
async fn a_thousand_slow_connections_keep_nobody_from_the_poller() -> Result<()> {
    let poller = scene::poller(&[], "").await?;
    stands(&poller.program, &poller.token).await
}
