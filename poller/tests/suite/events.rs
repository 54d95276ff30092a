//! The live stream of events: taken up where it was left, without gap or double.

use std::time::Duration;

use pm2_poller::access::Role;
use pm2_poller::store::Before;
use serde_json::Value;
use wire::{EventKind, Time};

use crate::support::{Exporter, PATIENCE, Poller, target, until};

#[tokio::test]
async fn events_and_commands_of_a_stretch_of_time_are_listed() {
    let exporter = Exporter::start().await;
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    poller.until_status("vm1", "online").await;
    exporter.event(EventKind::EXIT, "it");
    until("it is stored", async || poller.kinds("kind=exit").await.len() == 1).await;
    let event = &poller.get("/api/events?kind=exit").await.json()["events"][0];
    let time: Time = event["time"].as_str().unwrap().parse().unwrap();
    let later = time.plus_millis(1);
    for (stretch, count) in [
        (format!("since={time}&until={later}"), 1),
        (format!("until={time}"), 0),
        (format!("since={later}"), 0),
        ("since=1h&until=30m".to_owned(), 0),
    ] {
        assert_eq!(poller.kinds(&format!("kind=exit&{stretch}")).await.len(), count, "{stretch}");
    }
    let token = poller.token("ci", Role::Operator, &[]).await;
    assert_eq!(poller.post_as(&token, "/api/commands/vm1/apps/api/restart").await.status, 200);
    for (until, count) in [("0s", 1), ("30m", 0)] {
        let path = format!("/api/commands?since=1h&until={until}");
        let list = poller.get_as(&token, &path).await.json();
        assert_eq!(list["commands"].as_array().unwrap().len(), count, "{path}: {list}");
    }
    let wrong = poller.get_as(&token, "/api/events?until=1000000d").await;
    assert!(wrong.body.contains("until: ") && wrong.body.contains("100y at most"), "{wrong:?}");
}

/// A stream that is read event by event.
struct Reader {
    response: reqwest::Response,
    text: String,
}

impl Reader {
    async fn open(poller: &Poller, path: &str, last: Option<i64>) -> Self {
        let mut request = reqwest::Client::new().get(format!("{}{path}", poller.base));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        Self { response, text: String::new() }
    }

    /// Kind (empty for an ordinary one) and data of the next.
    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = block.to_owned();
                self.text = rest.to_owned();
                let field = |name: &str| {
                    block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
                };
                let Some(data) = field("data: ") else { continue };
                let data: Value = serde_json::from_str(&data).unwrap();
                if let Some(id) = field("id: ") {
                    assert_eq!(id, data["id"].to_string());
                }
                return (field("event: ").unwrap_or_default(), data);
            }
            let piece = tokio::time::timeout(PATIENCE, self.response.chunk()).await.unwrap();
            let piece = piece.unwrap().expect("the stream goes on");
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    async fn messages(&mut self, count: usize) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(self.next().await.1["message"].as_str().unwrap().to_owned());
        }
        all
    }
}

#[tokio::test]
async fn who_comes_back_gets_what_they_missed_and_then_what_comes() {
    let exporter = Exporter::start().await;
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    poller.until_status("vm1", "online").await;
    let path = "/api/events/stream?kind=exit";
    let mut reader = Reader::open(&poller, path, None).await;
    exporter.event(EventKind::EXIT, "0");
    let first = reader.next().await.1;
    let last = first["id"].as_i64().unwrap();
    drop(reader);
    // More than a page of the store, between others that are not asked for.
    for n in 1..=700 {
        exporter.event(EventKind::EXIT, &n.to_string());
        if n % 7 == 0 {
            exporter.event(EventKind::ONLINE, "not asked for");
        }
    }
    let stored = async || poller.kinds("kind=exit").await.len() == 701;
    until("all are stored", stored).await;
    // By the header as browsers do, and by the address; while more comes.
    let mut by_header = Reader::open(&poller, path, Some(last)).await;
    let mut by_address = Reader::open(&poller, &format!("{path}&after={last}"), None).await;
    for n in 701..=710 {
        exporter.event(EventKind::EXIT, &n.to_string());
    }
    let expected: Vec<String> = (1..=710).map(|n| n.to_string()).collect();
    assert_eq!(by_header.messages(710).await, expected);
    assert_eq!(by_address.messages(710).await, expected);
    let mut by_time = Reader::open(&poller, &format!("{path}&since=1h"), None).await;
    assert_eq!(by_time.messages(711).await[1..], expected);
    let none = poller.get(&format!("{path}&cursor=1")).await;
    assert_eq!(none.problem(), "bad_request");
    let answer = poller.get("/api/events/stream?after=-1").await;
    assert_eq!(answer.problem(), "bad_request");
    let answer = poller.ask(axum::http::Method::GET, path, &[("last-event-id", "x")]).await;
    assert!(answer.body.contains("Last-Event-ID"), "{answer:?}");
}

#[tokio::test]
async fn events_of_many_servers_come_by_number_and_none_is_left_out() {
    let mut exporters = Vec::new();
    for _ in 0..20 {
        exporters.push(Exporter::start().await);
    }
    let servers = exporters.iter().enumerate();
    let servers = servers.map(|(n, it)| target(&format!("vm{n}"), &it.url())).collect();
    let poller = Poller::start(servers).await;
    for n in 0..20 {
        poller.until_status(&format!("vm{n}"), "online").await;
    }
    let mut reader = Reader::open(&poller, "/api/events/stream?kind=exit", None).await;
    for round in 0..10 {
        for exporter in &exporters {
            exporter.event(EventKind::EXIT, &round.to_string());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut last = 0;
    for _ in 0..200 {
        let id = reader.next().await.1["id"].as_i64().unwrap();
        assert!(id > last, "{id} after {last}");
        last = id;
    }
}

#[tokio::test]
async fn what_is_kept_no_longer_is_told() {
    let exporter = Exporter::start().await;
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    poller.until_status("vm1", "online").await;
    for n in 1..=10 {
        exporter.event(EventKind::EXIT, &n.to_string());
    }
    until("all are stored", async || poller.kinds("kind=exit").await.len() == 10).await;
    let list = poller.get("/api/events?kind=exit&limit=10").await.json();
    let first = list["events"][9]["id"].as_i64().unwrap();
    let never = Time::from_millis(0);
    let before = Before {
        samples: never,
        minutes: never,
        hours: never,
        events: Time::now().plus_millis(1000),
        commands: never,
        audit: never,
    };
    poller.app.store.retain(before).await.unwrap();
    exporter.event(EventKind::EXIT, "11");
    until("the next is stored", async || poller.kinds("kind=exit").await.len() == 1).await;
    let path = "/api/events/stream?kind=exit";
    let mut reader = Reader::open(&poller, path, Some(first)).await;
    let (kind, gap) = reader.next().await;
    assert_eq!((kind.as_str(), &gap["after"], &gap["missing"]), ("gap", &first.into(), &9.into()));
    assert_eq!(reader.messages(1).await, ["11"]);
    // Of a database that was set aside, say.
    let mut reader = Reader::open(&poller, path, Some(1_000_000)).await;
    let (kind, gap) = reader.next().await;
    assert_eq!((kind.as_str(), &gap["missing"]), ("gap", &Value::Null), "{gap}");
    exporter.event(EventKind::EXIT, "12");
    assert_eq!(reader.messages(1).await, ["12"]);
}

#[tokio::test]
async fn who_is_dropped_before_the_first_event_misses_none() {
    let (exporter, other) = (Exporter::start().await, Exporter::start().await);
    let poller = Poller::start(vec![exporter.target("vm1"), other.target("vm2")]).await;
    poller.until_status("vm1", "online").await;
    poller.until_status("vm2", "online").await;
    let path = "/api/events/stream?server=vm1&kind=exit";
    let mut response = poller.stream(path).await;
    let mut text = String::new();
    while !text.contains("\n\n") {
        let piece = tokio::time::timeout(PATIENCE, response.chunk()).await.unwrap();
        text.push_str(std::str::from_utf8(&piece.unwrap().unwrap()).unwrap());
    }
    // What a browser keeps of it, though it shows no event.
    let last: i64 = text.trim().strip_prefix("id: ").unwrap().parse().unwrap();
    drop(response);
    other.event(EventKind::EXIT, "not asked for");
    exporter.event(EventKind::EXIT, "missed");
    until("both are stored", async || poller.kinds("kind=exit").await.len() == 2).await;
    let mut again = Reader::open(&poller, path, Some(last)).await;
    assert_eq!(again.messages(1).await, ["missed"]);
}
