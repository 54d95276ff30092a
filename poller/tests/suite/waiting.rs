//! Between polls: events come at once, and polls come no later for it.

use std::time::{Duration, Instant};

use crate::support::exporter::Manner;
use crate::support::{Exporter, PATIENCE, Poller, config, hasty, until};
use axum::http::StatusCode;
use pm2_poller::config::{Config, Target};
use wire::EventKind;

/// Polls so far apart that a test sees what comes between them.
fn seldom(servers: Vec<Target>) -> Config {
    let mut config = config(servers);
    config.timing.interval = Duration::from_secs(4);
    config.timing.timeout = Duration::from_secs(2);
    config.timing.stale_after = Duration::from_secs(12);
    config
}

/// Until a poll was just made and a request waits for events: how many polls there were.
async fn just_polled(exporter: &Exporter) -> usize {
    let before = exporter.lock().polls;
    until("a poll, and a request that waits", async || {
        let inner = exporter.lock();
        inner.polls > before && inner.waiting == 1
    })
    .await;
    exporter.lock().polls
}

async fn messages(poller: &Poller) -> Vec<String> {
    let filter = pm2_poller::store::EventFilter {
        kind: Some("exit".into()),
        limit: 10_000,
        ..Default::default()
    };
    // None where the store is busy: it is asked again.
    let events = poller.app.store.events(&filter).await.unwrap_or_default();
    events.into_iter().rev().map(|stored| stored.event.message).collect()
}

async fn counted(poller: &Poller, result: &str) -> u64 {
    let series = format!("pm2_poller_waits_total{{result=\"{result}\"}} ");
    let page = poller.get("/metrics").await.body;
    let value = page.lines().find_map(|line| line.strip_prefix(&series));
    value.unwrap_or_else(|| panic!("no {series} in {page}")).parse().unwrap()
}

#[tokio::test]
async fn events_are_at_the_stream_before_the_next_poll() {
    let exporter = Exporter::start().await;
    let mut config = seldom(vec![exporter.target("vm1")]);
    // All of it must fit between two polls.
    config.timing.interval = Duration::from_secs(20);
    config.timing.stale_after = Duration::from_secs(60);
    let poller = Poller::with(config).await;
    let polls = just_polled(&exporter).await;
    let mut stream = poller.stream("/api/events/stream?kind=exit").await;
    let mut text = String::new();
    for n in 1..=2 {
        exporter.event(EventKind::EXIT, &format!("crash {n}"));
        while !text.contains(&format!("crash {n}")) {
            let piece = tokio::time::timeout(PATIENCE, stream.chunk()).await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        }
    }
    assert_eq!(exporter.lock().polls, polls, "no poll brought it");
    assert_eq!(counted(&poller, "events").await, 2);
    assert_eq!(messages(&poller).await, ["crash 1", "crash 2"]);
}

#[tokio::test]
async fn over_waits_and_polls_nothing_is_lost_or_doubled() {
    let exporter = Exporter::start().await;
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    poller.until_status("vm1", "online").await;
    // That no poll is late for it, to the millisecond, is `simulation/starts.rs`'s to show.
    let count = || poller.app.metrics.poll_duration.get_sample_count();
    let before = count();
    let mut expected = Vec::new();
    for n in 0..200u64 {
        exporter.event(EventKind::EXIT, &n.to_string());
        if n % 5 == 0 {
            exporter.sample(n as f64 / 1000.0);
        }
        expected.push(n.to_string());
        tokio::time::sleep(Duration::from_millis(7 + n * 13 % 23)).await;
    }
    until("it was polled meanwhile", async || count() >= before + 5).await;
    until("all of it", async || messages(&poller).await.len() >= expected.len()).await;
    assert_eq!(messages(&poller).await, expected);
    assert!(counted(&poller, "events").await > 0, "some came between polls");
    let online = poller.kinds("kind=server_online").await;
    assert_eq!(online.len(), 1, "never offline meanwhile");
}

#[tokio::test]
async fn a_server_that_always_has_something_to_tell_is_asked_now_and_then() {
    let exporter = Exporter::start().await;
    let poller = Poller::with(seldom(vec![exporter.target("vm1")])).await;
    just_polled(&exporter).await;
    let (start, before) = (Instant::now(), exporter.lock().waits);
    for n in 0..250 {
        exporter.event(EventKind::EXIT, &n.to_string());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let waits = exporter.lock().waits - before;
    let most = 5 + 4 * start.elapsed().as_secs() as usize;
    assert!((2..=most).contains(&waits), "{waits} requests in {:?}", start.elapsed());
    until("all of it", async || messages(&poller).await.len() == 250).await;
}

#[tokio::test]
async fn a_quiet_server_is_asked_once_an_interval() {
    let exporter = Exporter::start().await;
    let mut config = config(vec![exporter.target("vm1")]);
    // An answer may be late by a quarter of this, and is the poll still.
    config.timing.interval = Duration::from_secs(2);
    let poller = Poller::with(config).await;
    until("a request waits", async || exporter.lock().waiting == 1).await;
    let asked = || {
        let inner = exporter.lock();
        (inner.waits, inner.polls)
    };
    let (waits, polls) = asked();
    until("some polls", async || exporter.lock().polls >= polls + 6).await;
    let (waits, polls) = (asked().0 - waits, asked().1 - polls);
    // Each answer is a poll; on a slow machine one may be too late and asked for anew.
    let late = counted(&poller, "timeout").await as usize;
    assert!(waits + 1 + late >= polls, "{waits} waits made {polls} polls, {late} were late");
    poller.until_status("vm1", "online").await;
    exporter.sample(1.0);
    until("the poll brings readings", async || {
        let page = poller.get("/metrics").await.body;
        page.contains("pm2_poller_journal_entries_total{kind=\"sample\"} 1")
    })
    .await;
}

#[tokio::test]
async fn one_that_goes_away_and_stays_away_is_asked_less_and_found_again() {
    let exporter = Exporter::start().await;
    let poller = Poller::with(hasty(vec![exporter.target("vm1")])).await;
    poller.until_status("vm1", "online").await;
    exporter.set(Manner::Say(StatusCode::INTERNAL_SERVER_ERROR, String::new()));
    poller.until_status("vm1", "offline").await;
    until("it is asked now and then", async || {
        let before = exporter.lock().polls;
        tokio::time::sleep(Duration::from_millis(1000)).await;
        exporter.lock().polls - before <= 3
    })
    .await;
    exporter.set(Manner::Good);
    poller.until_status("vm1", "online").await;
}

#[tokio::test]
async fn it_can_be_turned_off() {
    let exporter = Exporter::start().await;
    let mut config = config(vec![exporter.target("vm1")]);
    config.timing.wait_for_events = false;
    let poller = Poller::with(config).await;
    exporter.event(EventKind::EXIT, "1");
    poller.until_kinds("kind=exit", &["exit"]).await;
    until("some polls", async || exporter.lock().polls >= 4).await;
    assert_eq!(exporter.lock().waits, 0);
}

#[tokio::test]
async fn where_waiting_fails_the_polls_decide() {
    let exporter = Exporter::start().await;
    exporter.lock().no_waits = Some(StatusCode::BAD_REQUEST);
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    until("some polls", async || exporter.lock().polls >= 5).await;
    exporter.event(EventKind::EXIT, "1");
    poller.until_kinds("kind=exit", &["exit"]).await;
    poller.until_status("vm1", "online").await;
    until("it is counted", async || counted(&poller, "status").await > 0).await;
    let inner = exporter.lock();
    assert!(
        inner.waits <= inner.polls,
        "{} waits, {} polls: not tried again",
        inner.waits,
        inner.polls
    );
}

#[tokio::test]
async fn a_removal_and_a_stop_end_what_waits() {
    let mut exporters = Vec::new();
    for _ in 0..30 {
        exporters.push(Exporter::start().await);
    }
    let name = |n: usize| format!("vm{n}");
    let servers = exporters.iter().enumerate().map(|(n, it)| it.target(&name(n))).collect();
    let poller = Poller::with(seldom(servers)).await;
    until("all wait", async || exporters.iter().all(|it| it.lock().waiting == 1)).await;

    let mut next = poller.config.clone();
    next.database = poller.database();
    next.servers.remove(0);
    *poller.next_config.lock().unwrap() = Ok(next);
    poller.reload.send(()).await.unwrap();
    until("it is let go", async || exporters[0].lock().waiting == 0).await;
    until("it is gone", async || poller.get("/api/servers/vm0").await.status == 404).await;

    until("the others wait", async || exporters[1..].iter().all(|it| it.lock().waiting == 1)).await;
    poller.stop().await;
    until("none waits", async || exporters.iter().all(|it| it.lock().waiting == 0)).await;
}
