//! What somebody follows ends when what let them in does so no more.

use axum::http::Method;
use pm2_poller::access::Role;
use serde_json::json;
use wire::{EventKind, Time};

use crate::support::{Exporter, PATIENCE, Poller, until};

const EVENTS: &str = "/api/events/stream";
const LOG: &str = "/api/servers/vm1/slots/a/deployments/d1/log?follow=true";

async fn follow(poller: &Poller, path: &str, header: (&str, &str)) -> reqwest::Response {
    let request = reqwest::Client::new().get(format!("{}{path}", poller.base));
    let response = request.header(header.0, header.1).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response
}

/// Reads to the end, which must come.
async fn ends(what: &str, mut response: reqwest::Response) {
    let end = async { while let Ok(Some(_)) = response.chunk().await {} };
    assert!(tokio::time::timeout(PATIENCE, end).await.is_ok(), "{what} goes on");
}

#[tokio::test]
async fn streams_and_logs_end_with_the_credential() {
    let exporter = Exporter::start().await;
    let poller = Poller::start(vec![exporter.target("vm1"), exporter.target("vm2")]).await;
    let admin = poller.token("admin", Role::Admin, &[]).await;
    poller.until_status_as(&admin, "vm1", "online").await;
    let bearer = |token: &str| format!("Bearer {token}");
    let stays = bearer(&poller.token("stays", Role::Viewer, &["vm1"]).await);
    let revoked = bearer(&poller.token("revoked", Role::Viewer, &[]).await);
    let of_session = poller.token("page", Role::Viewer, &[]).await;
    let here = [("sec-fetch-site", "same-origin")];
    let signed_in = poller.form("/login", &format!("token={of_session}"), &here).await;
    let cookie = signed_in.header("set-cookie").split(';').next().unwrap().to_owned();
    // Long enough to begin, however slow the machine is just now.
    let soon = Some(Time::now().plus_millis(20_000));
    let expires = bearer(&poller.token_until("expires", Role::Viewer, &[], soon).await);

    let mut followed = Vec::new();
    for (what, header) in [
        ("an expired token", ("authorization", expires.as_str())),
        ("a revoked token", ("authorization", revoked.as_str())),
        ("a session that was ended", ("cookie", cookie.as_str())),
    ] {
        for path in [EVENTS, LOG] {
            followed.push((format!("{path} of {what}"), follow(&poller, path, header).await));
        }
    }
    let mut goes_on = follow(&poller, EVENTS, ("authorization", &stays)).await;

    let list = poller.get_as(&admin, "/api/sessions").await.json();
    let id = list["sessions"][0]["id"].as_str().unwrap().to_owned();
    for path in ["/api/tokens/revoked".to_owned(), format!("/api/sessions/{id}")] {
        let answer = poller.send(Method::DELETE, &admin, &path, &json!(null)).await;
        assert_eq!(answer.status, 204, "{path}: {}", answer.body);
    }
    for (what, response) in followed {
        ends(&what, response).await;
    }
    exporter.event(EventKind::EXIT, "still told");
    let mut text = String::new();
    let told = async {
        while !text.contains("still told") {
            let piece = goes_on.chunk().await.unwrap().expect("it goes on");
            text.push_str(&String::from_utf8_lossy(&piece));
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    until("their places are given back", async || poller.app.metrics.streams.get() == 1).await;
}

#[tokio::test]
async fn a_user_who_is_removed_or_limited_sees_no_more() {
    let exporter = Exporter::start().await;
    let poller = Poller::start(vec![exporter.target("vm1"), exporter.target("vm2")]).await;
    let admin = poller.token("admin", Role::Admin, &[]).await;
    poller.until_status_as(&admin, "vm1", "online").await;
    poller.until_status_as(&admin, "vm2", "online").await;
    let password = "correct horse battery";
    let body = json!({"name": "alice", "role": "viewer", "password": password});
    assert_eq!(poller.post_json(&admin, "/api/users", &body, None).await.status, 201);
    let here = [("sec-fetch-site", "same-origin")];
    let signed_in = poller.form("/login", "name=alice&password=correct+horse+battery", &here).await;
    let cookie = signed_in.header("set-cookie").split(';').next().unwrap().to_owned();
    let header = ("cookie", cookie.as_str());
    let stream = follow(&poller, EVENTS, header).await;
    let log = follow(&poller, LOG, header).await;

    let change = json!({"servers": ["vm2"]});
    let changed = poller.send(Method::PATCH, &admin, "/api/users/alice", &change).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    ends("a log of a server that they do not see any more", log).await;
    let gone = poller.send(Method::DELETE, &admin, "/api/users/alice", &json!(null)).await;
    assert_eq!(gone.status, 204);
    ends("the stream of a user who is gone", stream).await;
}

#[tokio::test]
async fn one_who_follows_much_keeps_nobody_else_from_it() {
    let poller = Poller::start(Vec::new()).await;
    let [greedy, other] = [
        poller.token("greedy", Role::Viewer, &[]).await,
        poller.token("other", Role::Viewer, &[]).await,
    ];
    let number = poller
        .app
        .store
        .tokens()
        .await
        .unwrap()
        .iter()
        .find(|it| it.name == "greedy")
        .map(|it| it.id);
    let held: Vec<_> = std::iter::from_fn(|| poller.app.followers.take(number, None)).collect();
    assert_eq!(held.len(), 500);
    let refused = poller.get_as(&greedy, EVENTS).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(refused.json()["detail"], "\"greedy\" has 500 streams open already");
    let one = follow(&poller, EVENTS, ("authorization", &format!("Bearer {other}"))).await;
    drop((held, one));
    follow(&poller, EVENTS, ("authorization", &format!("Bearer {greedy}"))).await;
}
