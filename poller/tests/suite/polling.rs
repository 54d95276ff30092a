//! Polling: what is taken in, what is refused, and what is shown of it.

use std::time::Duration;

use crate::support::exporter::Manner;
use crate::support::{Exporter, Poller, config, target, until};
use axum::http::{HeaderValue, StatusCode};
use serde_json::json;
use wire::{EventKind, Record, Time};

#[tokio::test]
async fn what_a_server_says_is_shown_and_kept() {
    let exporter = Exporter::start().await;
    exporter.sample(1.0);
    exporter.event(EventKind::EXIT, "api exited");
    exporter.event(EventKind::ONLINE, "api is online");
    let mut server = exporter.target("vm1");
    server.credential = Ok(Some(HeaderValue::from_static("Bearer secret")));
    let poller = Poller::start(vec![server]).await;
    let shown = poller.until_status("vm1", "online").await;
    assert_eq!(shown["processes"], json!({"total": 2, "online": 2}));
    assert_eq!(shown["slots"], json!({"total": 1, "deployed": 0, "serving": 1}));
    poller.until_kinds("app=api", &["exit", "online"]).await;
    poller.until_kinds("kind=server_online", &["server_online"]).await;
    let apps = poller.get("/api/servers/vm1/apps").await.json();
    assert_eq!(apps["apps"][0]["name"], "api");
    let app = poller.get("/api/servers/vm1/apps/api").await.json();
    assert_eq!(app["instances"][0]["pid"], 77);
    assert_eq!(poller.get("/api/servers/vm1/slots").await.json()["slots"][0]["slot"], "a");
    let inner = exporter.lock();
    assert_eq!(inner.authorization.as_deref(), Some("Bearer secret"));
    assert_eq!(inner.accept_encoding.as_deref(), Some("gzip"));
}

#[tokio::test]
async fn each_event_is_kept_once_and_in_order_over_restarts_of_both() {
    let exporter = Exporter::start().await;
    exporter.event(EventKind::EXIT, "1");
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    poller.until_status("vm1", "online").await;
    let config = poller.config.clone();
    let folder = poller.stop().await;
    // While the poller is away: more than one page.
    for n in 2..=1500 {
        exporter.event(EventKind::EXIT, &n.to_string());
    }
    let poller = Poller::with_folder(folder, config).await;
    until("the backlog", async || poller.kinds("kind=exit").await.len() == 1000).await;
    until("all of it", async || messages(&poller).await.len() == 1500).await;
    exporter.begin_anew("second");
    exporter.event(EventKind::ONLINE, "anew");
    until("the new journal", async || poller.kinds("kind=online").await.len() == 1).await;
    let expected: Vec<String> = (1..=1500).map(|n| n.to_string()).collect();
    assert_eq!(messages(&poller).await, expected);
    assert_eq!(poller.kinds("kind=journal_reset").await.len(), 1);
    assert_eq!(poller.kinds("kind=server_online").await.len(), 1, "it was never offline");
}

#[tokio::test]
async fn an_exporter_that_goes_on_with_its_journal_has_no_reset_to_tell_of() {
    let exporter = Exporter::start().await;
    exporter.event(EventKind::EXIT, "1");
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    until("the first", async || messages(&poller).await.len() == 1).await;
    for (life, n) in ["second", "third", "fourth"].into_iter().zip(2..) {
        // One entry that the poller has not read when the exporter restarts, one that it has.
        exporter.set(Manner::Hang);
        exporter.event(EventKind::EXIT, &n.to_string());
        exporter.restart(life);
        exporter.set(Manner::Good);
        until("it goes on", async || messages(&poller).await.len() == n).await;
    }
    let restarted_quietly = exporter.lock().polls;
    exporter.restart("fifth");
    until("polls go on", async || exporter.lock().polls > restarted_quietly + 2).await;
    assert_eq!(messages(&poller).await, ["1", "2", "3", "4"]);
    let kinds = poller.kinds("").await;
    let told = |kind: &str| kinds.iter().filter(|it| *it == kind).count();
    assert_eq!((told("journal_reset"), told("journal_lost"), told("server_offline")), (0, 0, 0));
    assert_eq!(told("server_online"), 1, "it was never away");
}

/// Messages of all exits, in the order of time and number.
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

#[tokio::test]
async fn what_is_lost_is_told() {
    let exporter = Exporter::start().await;
    exporter.event(EventKind::EXIT, "1");
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    // It is shown as online before what it told is stored.
    poller.until_kinds("kind=exit", &["exit"]).await;
    exporter.set(Manner::Hang);
    poller.until_server("vm1", |it| it["status"] != "online").await;
    for n in 2..=10 {
        exporter.event(EventKind::EXIT, &n.to_string());
    }
    exporter.overrun(6);
    exporter.set(Manner::Good);
    until("the loss", async || poller.kinds("kind=journal_lost").await.len() == 1).await;
    let lost = poller.get("/api/events?kind=journal_lost").await.json();
    assert_eq!(lost["events"][0]["details"]["lost"], "5");
    assert_eq!(messages(&poller).await, ["1", "7", "8", "9", "10"]);
}

#[tokio::test]
async fn what_was_gone_before_the_first_answer_is_nobodys_loss() {
    let exporter = Exporter::start().await;
    for n in 1..=10 {
        exporter.event(EventKind::EXIT, &n.to_string());
    }
    exporter.overrun(6);
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    poller.until_kinds("kind=exit", &["exit"; 4]).await;
    assert_eq!(poller.kinds("kind=journal_lost").await, Vec::<String>::new());
    let page = poller.get("/metrics").await.body;
    let lost = "pm2_server_journal_lost_entries_total{server=\"vm1\"} 0";
    assert!(page.contains(lost), "{page}");
}

#[tokio::test]
async fn a_silent_server_goes_stale_then_offline_then_online_again() {
    let exporter = Exporter::start().await;
    let mut config = config(vec![exporter.target("vm1")]);
    // Long enough to be seen stale.
    config.timing.stale_after = Duration::from_secs(12);
    let poller = Poller::with(config).await;
    poller.until_status("vm1", "online").await;
    let page = poller.get("/metrics").await.body;
    assert!(page.contains("pm2_server_up{server=\"vm1\"} 1"), "{page}");
    assert!(page.contains("pm2_process_up{server=\"vm1\",name=\"api\""), "{page}");

    exporter.set(Manner::Hang);
    let stale = poller.until_status("vm1", "stale").await;
    assert_eq!(stale["reason"], "timeout");
    let page = poller.get("/metrics").await.body;
    assert!(page.contains("pm2_server_up{server=\"vm1\"} 0"), "{page}");
    assert!(!page.contains("pm2_process"), "{page}");

    let offline = poller.until_status("vm1", "offline").await;
    assert_eq!(offline["processes"]["total"], 2, "what was known is still shown");
    assert!(offline["as_of"].is_string());
    until("it is told", async || poller.kinds("kind=server_offline").await.len() == 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let poller = poller.restart(None).await;
    let offline = poller.until_server("vm1", |it| it["reason"] == "timeout").await;
    assert_eq!(offline["processes"]["total"], 2, "and after a restart");
    assert_eq!(poller.kinds("kind=server_offline").await.len(), 1, "told once");

    exporter.set(Manner::Good);
    poller.until_status("vm1", "online").await;
    let kinds = ["server_online", "server_offline", "server_online"];
    poller.until_kinds("", &kinds).await;
}

#[tokio::test]
async fn whatever_is_wrong_is_refused_whole_and_counted_by_reason() {
    let trap = Exporter::start().await;
    let exporter = Exporter::start().await;
    exporter.event(EventKind::EXIT, "canary");
    exporter.sample(1.0);
    let cases: [(&str, Manner); 11] = [
        ("timeout", Manner::Hang),
        ("too_large", Manner::Bomb),
        ("malformed", Manner::Say(StatusCode::OK, "<html>".into())),
        ("unauthorized", Manner::Say(StatusCode::UNAUTHORIZED, String::new())),
        ("status", Manner::Redirect(format!("{}/api/journal?limit=1", trap.url()))),
        ("journal", Manner::Change(|page| page.entries[0].seq = 2)),
        // No two with the same reason follow each other: the second would not be waited for.
        ("status", Manner::Say(StatusCode::INTERNAL_SERVER_ERROR, String::new())),
        ("journal", Manner::Change(|page| page.after += 1)),
        (
            "future_time",
            Manner::Change(|page| {
                page.entries[1].time = Time::now().plus_millis(3_600_000);
            }),
        ),
        (
            "value",
            Manner::Change(|page| {
                if let Record::Sample(sample) = &mut page.entries[1].record {
                    sample.processes[0].readings.cpu_seconds = Some(-1.0);
                }
            }),
        ),
        (
            "limits",
            Manner::Change(|page| {
                let Some(state) = &mut page.state else { return };
                let process = state.processes[0].clone();
                state.processes = vec![process; 1001];
            }),
        ),
    ];
    exporter.set(Manner::Hang);
    let mut config = config(vec![exporter.target("vm1")]);
    // Unpacking what is too large takes a while where nothing is optimised.
    config.timing.timeout = Duration::from_secs(8);
    let poller = Poller::with(config).await;
    for (reason, manner) in cases {
        exporter.set(manner.clone());
        let shown = poller.until_server("vm1", |it| it["reason"] == reason).await;
        assert_eq!(shown["status"], "offline", "{manner:?}");
        assert!(shown["error"].as_str().is_some_and(|error| !error.is_empty()), "{manner:?}");
    }
    assert_eq!(trap.lock().polls, 0, "no redirect is followed");
    let cursor = poller.app.store.known_server(&"vm1".parse().unwrap()).await.unwrap().cursor;
    assert_eq!(cursor.after, 0);
    let exits = poller.get("/api/events?kind=exit").await;
    assert_eq!(exits.status, 200, "{exits:?}");
    assert_eq!(exits.json()["events"], json!([]), "nothing half-written");
    let page = poller.get("/metrics").await.body;
    assert!(!page.contains("pm2_poller_polls_total{result=\"too_large\"} 0"), "{page}");
    exporter.set(Manner::Good);
    poller.until_status("vm1", "online").await;
    poller.until_kinds("kind=exit", &["exit"]).await;
}

#[tokio::test]
async fn one_that_hangs_holds_up_nobody_and_a_stop_waits_for_none() {
    let mut servers = Vec::new();
    let mut good = Vec::new();
    for n in 0..100 {
        let exporter = Exporter::start().await;
        if n < 50 {
            exporter.set(Manner::Hang);
        }
        servers.push(exporter.target(&format!("vm{n}")));
        good.push(exporter);
    }
    let poller = Poller::start(servers).await;
    for n in 50..100 {
        poller.until_status(&format!("vm{n}"), "online").await;
    }
    // That each is asked when it is due, to the millisecond, is `simulation/starts.rs`'s to show.
    let before: Vec<usize> = good[50..].iter().map(|exporter| exporter.lock().polls).collect();
    until("all the others are asked ten times more", async || {
        let polls = good[50..].iter().map(|exporter| exporter.lock().polls);
        polls.zip(&before).all(|(polls, before)| polls >= before + 10)
    })
    .await;
    // That it waits for none of those that hang is shown by the program (`e2e`'s `stopping`).
    poller.stop().await;
}

#[tokio::test]
async fn a_server_is_called_what_the_registry_calls_it() {
    let exporter = Exporter::start().await;
    exporter.event(EventKind::EXIT, "1");
    let poller = Poller::start(vec![exporter.target("vm1"), exporter.target("vm2")]).await;
    for id in ["vm1", "vm2"] {
        poller.until_status(id, "online").await;
        poller.until_kinds(&format!("server={id}&kind=exit"), &["exit"]).await;
    }
    let page = poller.get("/metrics").await.body;
    for line in page.lines().filter(|line| line.starts_with("pm2_process")) {
        assert!(line.contains("{server=\"vm1\"") || line.contains("{server=\"vm2\""), "{line}");
    }
}

#[tokio::test]
async fn a_reload_changes_what_changed_and_a_bad_one_nothing() {
    let (one, two) = (Exporter::start().await, Exporter::start().await);
    // A wait that ends without an event would count as a poll.
    let polled = |servers| {
        let mut config = config(servers);
        config.timing.wait_for_events = false;
        config
    };
    let poller = Poller::with(polled(vec![one.target("vm1"), two.target("vm2")])).await;
    // What the same server is asked at the same moments by one that is left alone: where this
    // machine is too busy for a poll, it is for both.
    let still = Exporter::start().await;
    let undisturbed = Poller::with(polled(vec![still.target("vm1")])).await;
    undisturbed.until_status("vm1", "online").await;
    poller.until_status("vm1", "online").await;
    poller.until_status("vm2", "online").await;

    let polls = || (one.lock().polls, still.lock().polls);
    let before = polls();
    let mut next = polled(vec![one.target("vm1")]);
    next.database = poller.config.database.clone();
    for round in 0..100 {
        let mut next = next.clone();
        if round % 2 == 0 {
            next.servers.push(two.target("vm2").into());
        }
        *poller.next_config.lock().unwrap() = Ok(next);
        poller.reload.send(()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (polls, expected) = (polls().0 - before.0, polls().1 - before.1);
    assert!(polls.abs_diff(expected) <= 2, "{polls} polls, {expected} where nothing is reloaded");
    assert!(polls > 2, "{polls} polls");
    undisturbed.stop().await;
    until("vm2 is gone", async || poller.get("/api/servers/vm2").await.status == 404).await;
    let page = poller.get("/metrics").await.body;
    assert!(!page.contains("server=\"vm2\""), "{page}");
    assert!(page.contains("pm2_poller_config_last_reload_successful 1"), "{page}");

    let mistake = service::config::Mistake {
        key: "listen".into(),
        message: "is wrong".into(),
        origin: "test".into(),
    };
    *poller.next_config.lock().unwrap() = Err(service::config::Mistakes(vec![mistake]));
    poller.reload.send(()).await.unwrap();
    until("it is told", async || {
        poller.get("/metrics").await.body.contains("pm2_poller_config_last_reload_successful 0")
    })
    .await;
    poller.until_status("vm1", "online").await;
}

#[tokio::test]
async fn a_server_added_to_the_database_is_taken_up_and_the_configuration_wins() {
    let (one, two) = (Exporter::start().await, Exporter::start().await);
    let poller = Poller::start(vec![one.target("vm1")]).await;
    for (id, url) in [("vm1", "http://127.0.0.1:9".to_owned()), ("vm2", two.url())] {
        let server = pm2_poller::store::StoredServer {
            id: id.parse().unwrap(),
            url,
            token_file: None,
            group: String::new(),
            tags: Vec::new(),
            note: String::new(),
        };
        poller.app.store.add_server(server, Default::default()).await.unwrap();
    }
    poller.until_status("vm2", "online").await;
    poller.until_status("vm1", "online").await;
}

#[tokio::test]
async fn history_is_asked_for_by_range_and_step() {
    let exporter = Exporter::start().await;
    let poller =
        Poller::start(vec![exporter.target("vm1"), target("gone", "http://127.0.0.1:9")]).await;
    for n in 0..8 {
        exporter.sample(f64::from(n) * 0.1);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let times: Vec<Time> = exporter.lock().entries.iter().map(|entry| entry.time).collect();
    let rates: Vec<f64> =
        times.windows(2).map(|pair| 100.0 / pair[1].millis_since(pair[0]) as f64).collect();
    let path = "/api/servers/vm1/apps/api/metrics?metric=cpu&metric=memory&from=5m&step=10s";
    let vm1 = "vm1".parse().unwrap();
    until("all samples", async || {
        poller.app.store.known_server(&vm1).await.unwrap().cursor.after == times.len() as u64
    })
    .await;
    let history = poller.get(path).await.json();
    assert_eq!(history["series"][0]["metric"], "cpu");
    assert_eq!(history["series"][0]["unit"], "cores");
    let points = history["series"][0]["points"].as_array().unwrap();
    let column = |at: usize| points.iter().map(move |point| point[at].as_f64().unwrap());
    let least = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::INFINITY, f64::min);
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    let same = |one: f64, other: f64| (one - other).abs() < 1e-4;
    assert!(same(least(&mut column(1)), least(&mut rates.iter().copied())), "{rates:?} {points:?}");
    assert!(same(most(&mut column(3)), most(&mut rates.iter().copied())), "{rates:?} {points:?}");
    for (min, (mean, max)) in column(1).zip(column(2).zip(column(3))) {
        assert!(min <= mean && mean <= max, "{points:?}");
    }
    assert_eq!(history["series"][1]["points"][0][1], 52428800.0);
    let none = poller.get("/api/servers/gone/apps/api/metrics").await.json();
    assert_eq!(none["series"], json!([]));
    for (query, word) in [
        ("from=yesterday", "from: \"yesterday\""),
        ("from=1h&to=2h", "is not before to"),
        ("step=1ms", "at least 1s"),
        ("from=400d&step=1s", "at most 11000"),
        ("metrics=cpu", "known are metric, to, from, step"),
    ] {
        let answer = poller.get(&format!("/api/servers/vm1/apps/api/metrics?{query}")).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (400, "bad_request"));
        assert!(answer.body.contains(&word.replace('"', "\\\"")), "{query}: {}", answer.body);
    }
}

/// As a clock leaves it that was ahead for a moment.
#[tokio::test]
async fn entries_of_the_future_do_not_keep_out_what_is_true_by_now() {
    let exporter = Exporter::start().await;
    for message in ["before", "meanwhile", "after"] {
        exporter.event(EventKind::EXIT, message);
        exporter.sample(1.0);
    }
    let hour = 3_600_000;
    exporter.set(Manner::Change(|page| {
        for entry in &mut page.entries {
            if (3..5).contains(&entry.seq) {
                entry.time = Time::now().plus_millis(3_600_000);
            }
        }
    }));
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    poller.until_server("vm1", |it| it["reason"] == "future_time").await;
    poller.until_status("vm1", "online").await;
    // A server is shown as online before what it said is stored.
    poller.until_kinds("server=vm1&kind=exit", &["exit", "exit", "exit"]).await;
    let events = async || poller.get("/api/events?server=vm1").await.json()["events"].clone();
    let of = |events: &serde_json::Value, kind: &str| -> Vec<serde_json::Value> {
        let all = events.as_array().unwrap().iter().filter(|it| it["kind"] == kind);
        all.cloned().collect()
    };
    let all = events().await;
    let exits = of(&all, "exit");
    let messages: Vec<_> = exits.iter().map(|it| it["message"].as_str().unwrap()).collect();
    assert_eq!(messages.len(), 3, "{all}");
    let late = Time::now().plus_millis(hour / 2).to_string();
    for event in all.as_array().unwrap() {
        assert!(event["time"].as_str().unwrap() < late.as_str(), "{event}");
    }
    let meanwhile = exits.iter().find(|it| it["message"] == "meanwhile").unwrap();
    assert!(meanwhile["details"]["told_time"].as_str().unwrap() > late.as_str(), "{meanwhile}");
    let told = of(&all, "clock_ahead");
    assert_eq!(told.len(), 1, "{all}");
    assert_eq!(told[0]["details"]["samples"], "1");
    assert_eq!(told[0]["details"]["events"], "1");
}

#[tokio::test]
async fn a_clock_that_is_behind_is_told_by_how_much() {
    let exporter = Exporter::start().await;
    exporter.set(Manner::Change(|page| {
        page.now = page.now.plus_millis(-600_000);
        for entry in &mut page.entries {
            entry.time = entry.time.plus_millis(-600_000);
        }
    }));
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    poller.until_status("vm1", "online").await;
    let page = poller.get("/metrics").await.body;
    let offset = page.lines().find_map(|line| {
        line.strip_prefix("pm2_server_clock_offset_seconds{server=\"vm1\"} ")?.parse::<f64>().ok()
    });
    assert!(offset.is_some_and(|it| (-660.0..-599.9).contains(&it)), "{offset:?}\n{page}");
}
