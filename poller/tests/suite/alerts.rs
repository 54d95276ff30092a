//! What holds now: told to who may see it, and never called all right by the page.

use pm2_poller::access::Role;
use serde_json::{Value, json};
use wire::{Time, TokenExpiry};

use crate::support::exporter::Manner;
use crate::support::{Exporter, Poller, config, until};

/// Name, status and server of each alert.
async fn held(poller: &Poller, token: &str, query: &str) -> Vec<(String, String, String)> {
    let list = poller.get_as(token, &format!("/api/alerts{query}")).await.json();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let alerts = list["alerts"].as_array().unwrap().iter();
    alerts.map(|it| (text(&it["name"]), text(&it["status"]), text(&it["server"]))).collect()
}

fn named(all: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    all.iter()
        .map(|(name, status, server)| (name.to_string(), status.to_string(), server.to_string()))
        .collect()
}

/// A poller of one whose token ends soon, and of one that does not answer; its configuration was
/// refused.
async fn troubled() -> (Exporter, Exporter, Poller) {
    let (one, two) = (Exporter::start().await, Exporter::start().await);
    one.set(Manner::Change(|page| {
        if let Some(state) = &mut page.state {
            let expires_at = Time::now().plus_millis(3 * 86_400_000 + 3_600_000);
            state.exporter.token_expiries = vec![TokenExpiry { name: "ops".into(), expires_at }];
        }
    }));
    two.set(Manner::Hang);
    let mut config = config(vec![one.target("vm1"), two.target("vm2")]);
    // Nothing is late, though one does not answer.
    config.timing.interval = config.timing.timeout;
    let poller = Poller::with(config).await;
    poller.app.metrics.reload_ok.set(0);
    (one, two, poller)
}

const TOKEN: (&str, &str, &str) = ("Pm2TokenExpiring", "firing", "vm1");
const DOWN: (&str, &str, &str) = ("Pm2ServerDown", "pending", "vm2");
const REFUSED: (&str, &str, &str) = ("Pm2PollerConfigRefused", "pending", "-");

#[tokio::test]
async fn a_loop_is_one_after_a_restart_too() {
    let exporter = Exporter::start().await;
    exporter.set(Manner::Change(|page| {
        if let Some(state) = &mut page.state {
            state.processes[0].restarts.crash = 9;
        }
    }));
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    let admin = poller.token("root", Role::Admin, &[]).await;
    poller.until_status_as(&admin, "vm1", "online").await;
    for _ in 0..4 {
        exporter.crash();
    }
    let page = async || poller.get_as(&admin, "/").await.body;
    until("the page tells of the loop", async || page().await.contains("4 crashes in 10 min"))
        .await;
    let poller = poller.restart(None).await;
    let mut said = String::new();
    until("the list of alerts as well", async || {
        let list = poller.get_as(&admin, "/api/alerts?name=Pm2CrashLoop").await.json();
        said = list["alerts"][0]["description"].as_str().unwrap_or_default().to_owned();
        !said.is_empty()
    })
    .await;
    assert!(said.contains(" 4 times within 10 minutes"), "{said}");
}

#[tokio::test]
async fn what_holds_is_told_to_those_who_may_see_it() {
    let (_one, _two, poller) = troubled().await;
    let admin = poller.token("root", Role::Admin, &[]).await;
    let narrow = poller.token("narrow", Role::Viewer, &["vm2"]).await;
    let all = named(&[TOKEN, DOWN, REFUSED]);
    until("all of it is found", async || held(&poller, &admin, "").await == all).await;
    for (query, expected) in [
        ("?status=firing", &[TOKEN][..]),
        ("?status=pending&severity=critical", &[DOWN]),
        ("?server=vm2", &[DOWN]),
        ("?name=Pm2TokenExpiring", &[TOKEN]),
        ("?server=vm9", &[]),
    ] {
        assert_eq!(held(&poller, &admin, query).await, named(expected), "{query}");
    }
    assert_eq!(
        held(&poller, &narrow, "").await,
        named(&[DOWN]),
        "the poller's own are for all or none"
    );
    let wrong = poller.get_as(&admin, "/api/alerts?status=over").await;
    assert_eq!((wrong.status.as_u16(), wrong.problem().as_str()), (400, "bad_request"));

    let list = poller.get_as(&admin, "/api/alerts").await.json();
    let token = &list["alerts"][0];
    assert_eq!(token["labels"], json!({"server": "vm1", "token": "ops"}));
    assert_eq!(token["summary"], "Token ops of vm1 expires");
    assert!(token["description"].as_str().unwrap().starts_with("In 3 days"), "{token}");
    assert_eq!(token["page"], "/servers/vm1");
    // Since when it holds outlives the program.
    let since = token["starts_at"].clone();
    let poller = poller.restart(None).await;
    until("it is found again", async || held(&poller, &admin, "?status=firing").await.len() == 1)
        .await;
    let list = poller.get_as(&admin, "/api/alerts").await.json();
    assert_eq!(list["alerts"][0]["starts_at"], since);
}

#[tokio::test]
async fn pages_tell_what_alerts_tell() {
    let (one, _two, poller) = troubled().await;
    let admin = poller.token("root", Role::Admin, &[]).await;
    until("it is told", async || held(&poller, &admin, "?status=firing").await.len() == 1).await;
    for path in ["/?q=vm1", "/servers/vm1"] {
        let page = poller.get_as(&admin, path).await.body;
        assert!(page.contains("the token ops of vm1 ends being good"), "{path}: {page}");
    }
    assert!(poller.get_as(&admin, "/?q=vm1").await.body.contains("1 token expiring"));
    let narrow = poller.token("narrow", Role::Viewer, &["vm2"]).await;
    assert!(!poller.get_as(&narrow, "/").await.body.contains("ops"));
    one.set(Manner::Good);
    one.lock().revision += 1;
    until("it is over", async || {
        held(&poller, &admin, "?status=firing").await.is_empty()
            && poller.get_as(&admin, "/?q=vm1").await.body.contains("Everything is all right")
    })
    .await;
}
