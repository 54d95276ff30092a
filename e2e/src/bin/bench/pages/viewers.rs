//! Five hundred who watch a page live, each as its script does: a stream of events, and the page
//! again shortly after one, or after ten seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use e2e::bench::Bench;
use e2e::bench::table::Table;
use reqwest::{Method, header};
use tokio::time::Instant;

use crate::fleet::asks::Asker;
use crate::fleet::stage::Stage;

const VIEWERS: usize = 500;
/// How `live.js` waits: at least so long after an event, at most so much longer, and so long without
/// one.
const AT_LEAST: u64 = 50;
const LONGER: u64 = 250;
const QUIET: Duration = Duration::from_secs(10);

/// What all of them saw.
#[derive(Debug, Default)]
struct Seen {
    /// Events, by the first of them.
    events: AtomicU64,
    pages: AtomicU64,
    bytes: AtomicU64,
}

pub(super) async fn run(bench: &Bench, stage: &Stage, window: Duration) -> anyhow::Result<()> {
    let asker = Asker::new(stage.poller.launch().base(), &stage.admin)?;
    let columns = ["% of a core", "events a second", "pages a second", "KB a page"];
    let mut table = Table::new(format!("{VIEWERS} live viewers"), &columns).without_ratios();
    bench.progress("nobody watches");
    let without = stage.over(window).await?;
    for (name, page, stream, restarts) in [
        ("the fleet of 1,000", "/", "/api/events/stream", false),
        ("a server", "/servers/vm0", "/api/events/stream?server=vm0", true),
    ] {
        bench.progress(format_args!("{VIEWERS} watch {name}"));
        let seen = Arc::new(Seen::default());
        let mut viewers = tokio::task::JoinSet::new();
        for number in 0..VIEWERS {
            let request = asker.request(Method::GET, stream).timeout(window * 20);
            let answer = request.send().await?.error_for_status()?;
            viewers.spawn(watch(asker.clone(), answer, page, number as u64, Arc::clone(&seen)));
        }
        // Each has loaded the page once, as people do.
        tokio::time::sleep(QUIET).await;
        let driver = restarts.then(|| tokio::spawn(make_events(asker.clone(), Arc::clone(&seen))));
        let now = || [&seen.events, &seen.pages, &seen.bytes].map(|it| it.load(Ordering::Relaxed));
        let (before, begun) = (now(), Instant::now());
        let with = stage.over(window).await?;
        let (after, seconds) = (now(), begun.elapsed().as_secs_f64());
        if let Some(driver) = driver {
            driver.abort();
        }
        if let Some(ended) = viewers.try_join_next() {
            ended?.with_context(|| format!("{name}: a viewer was sent away"))?;
        }
        let [events, pages, bytes] =
            std::array::from_fn(|index| (after[index] - before[index]) as f64);
        let more = with.core - without.core;
        table.row(name, [more * 100.0, events / seconds, pages / seconds, bytes / pages / 1e3]);
        anyhow::ensure!(events / seconds > 0.7, "{name}: only {events} events");
        bench.target(format!("{VIEWERS} live viewers of {name}: part of a core"), more, 0.10);
    }
    bench.print(&table);
    Ok(())
}

/// Watches until the stream ends, which it should not.
async fn watch(
    asker: Asker,
    mut stream: reqwest::Response,
    page: &'static str,
    number: u64,
    seen: Arc<Seen>,
) -> anyhow::Result<()> {
    let (mut newest, mut text, mut chance) = (0, String::new(), number);
    // Not all at once.
    let mut due = Instant::now() + Duration::from_millis(number * 10);
    loop {
        tokio::select! {
            piece = stream.chunk() => {
                let piece = piece?.context("the stream has ended")?;
                text.push_str(&String::from_utf8_lossy(&piece));
                while let Some((line, rest)) = text.split_once('\n') {
                    if let Some(id) = line.strip_prefix("id:").and_then(|id| id.trim().parse().ok()) {
                        newest = u64::max(newest, id);
                        if number == 0 {
                            seen.events.fetch_add(1, Ordering::Relaxed);
                        }
                        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let wait = AT_LEAST + (chance >> 33) % LONGER;
                        due = Instant::now() + Duration::from_millis(wait);
                    }
                    text = rest.to_owned();
                }
            }
            () = tokio::time::sleep_until(due) => {
                let request = asker.request(Method::GET, page);
                let request = request.header(header::ACCEPT_ENCODING, "gzip");
                let answer = request.header("x-live", newest.to_string()).send().await?;
                let body = answer.error_for_status()?.bytes().await?;
                seen.pages.fetch_add(1, Ordering::Relaxed);
                seen.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
                due = Instant::now() + QUIET;
            }
        }
    }
}

/// About an event a second of one server, by restarts: each is several.
async fn make_events(asker: Asker, seen: Arc<Seen>) {
    let (begun, before) = (Instant::now(), seen.events.load(Ordering::Relaxed));
    loop {
        let made = seen.events.load(Ordering::Relaxed) - before;
        if made < begun.elapsed().as_secs() {
            let path = "/api/commands/vm0/apps/slot-a/restart?wait=10s";
            // One that fails shows in how many events there are.
            let _ = asker.request(Method::POST, path).send().await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
