//! Slots, asked of the exporter at the moment somebody asks the poller.

use crate::support::{PATIENCE, Poller, until};
use pm2_poller::access::Role;

const SLOT: &str = "/api/servers/vm1/slots/a";

#[tokio::test]
async fn a_slot_its_deployments_and_their_logs_are_shown() {
    let (_exporter, poller) = Poller::of_two().await;
    let slot = poller.get(SLOT).await.json();
    assert_eq!(
        (&slot["server"], &slot["slot"], &slot["port"]),
        (&"vm1".into(), &"a".into(), &3001.into())
    );
    let list = poller.get(&format!("{SLOT}/deployments")).await.json();
    assert_eq!(list["deployments"][0]["id"], "d1");
    let one = poller.get(&format!("{SLOT}/deployments/d1")).await.json();
    assert_eq!(one["status"], "healthy");
    let log = poller.get(&format!("{SLOT}/deployments/d1/log")).await;
    assert_eq!(log.body, "==> cloning\n==> done\n");
    // Whatever the exporter calls it.
    assert_eq!(log.header("content-type"), "text/plain; charset=utf-8");
}

#[tokio::test]
async fn a_log_that_is_followed_comes_line_by_line() {
    let (exporter, poller) = Poller::of_two().await;
    // A browser's, which takes packed answers as well.
    let url = format!("{}{SLOT}/deployments/d1/log?follow=true", poller.base);
    let request = reqwest::Client::new().get(url).header("accept-encoding", "gzip");
    let mut stream = request.send().await.unwrap();
    assert!(stream.headers().get("content-encoding").is_none());
    let first = tokio::time::timeout(PATIENCE, stream.chunk()).await.unwrap().unwrap().unwrap();
    assert_eq!(first, "==> cloning\n");
    exporter.lock().log_goes_on = true;
    let second = tokio::time::timeout(PATIENCE, stream.chunk()).await.unwrap().unwrap().unwrap();
    assert_eq!(second, "==> done\n");
    assert!(stream.chunk().await.unwrap().is_none());
    until("its place is given back", async || poller.app.metrics.streams.get() == 0).await;
}

#[tokio::test]
async fn what_the_exporter_refuses_is_told_as_such() {
    let (exporter, poller) = Poller::of_two().await;
    for (path, status, kind) in [
        ("slots/a/deployments/gone", 404, "unknown_deployment"),
        ("slots/a/deployments/gone/log", 404, "unknown_deployment"),
        ("slots/a/deployments/..%2F..%2Fstate", 404, "unknown_deployment"),
        ("slots/a/deployments/denied", 502, "exporter_denied"),
        ("slots/a/deployments/busy", 503, "busy"),
        ("slots/a/deployments/nonsense", 502, "exporter_failed"),
        ("slots/a/deployments/redirect", 502, "exporter_failed"),
        ("slots/z", 404, "unknown_slot"),
        ("slots/z/deployments", 404, "unknown_slot"),
        ("slots/..%2F/deployments", 404, "unknown_slot"),
        ("slots/a?x=1", 400, "bad_request"),
        ("slots/a/deployments/d1/log?follow=perhaps", 400, "bad_request"),
    ] {
        let answer = poller.get(&format!("/api/servers/vm1/{path}")).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (status, kind), "{path}");
        assert!(!answer.json()["detail"].as_str().unwrap().contains('\r'), "{answer:?}");
    }
    // Whoever may not see the server learns nothing of its slots.
    let other = poller.token("other", Role::Admin, &["vm2"]).await;
    for path in ["", "/deployments", "/deployments/d1", "/deployments/d1/log"] {
        let answer = poller.get_as(&other, &format!("{SLOT}{path}")).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (404, "unknown_server"));
    }
    drop(exporter);
}
