//! X9: what another site's page tries with the browser of somebody who is signed in. A page of the same
//! host on another port is of the same site, so that even a strict cookie goes along with its requests.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use axum::Router;
use axum::response::Html;
use e2e::scene::{self, Server, wait_for_instances};
use e2e::{Browser, FakePm2, SOON, pm2_process, wait_until};
use serde_json::Value;
use wire::Status;

/// Ways by which a page makes a browser ask somebody else, each of which is over when `done` is called.
const WAYS: [(&str, &str); 9] = [
    ("a form", "form('application/x-www-form-urlencoded', [['save', 'true']])"),
    ("a form of plain text, which is JSON", "form('text/plain', [['{\"a\":\"', '\"}']])"),
    ("a form with a file", "form('multipart/form-data', [['a', 'b']])"),
    (
        "fetch",
        "fetch(target, {method: 'POST', credentials: 'include', mode: 'no-cors'}).then(done, done)",
    ),
    (
        "fetch with a body",
        "fetch(target, {method: 'POST', credentials: 'include', mode: 'no-cors', \
      body: '{}', headers: {'content-type': 'text/plain'}}).then(done, done)",
    ),
    (
        "fetch with JSON",
        "fetch(target, {method: 'POST', credentials: 'include', body: '{}', \
      headers: {'content-type': 'application/json'}}).then(done, done)",
    ),
    (
        "fetch to take away",
        "fetch(target, {method: 'DELETE', credentials: 'include'}).then(done, done)",
    ),
    ("a beacon", "navigator.sendBeacon(target, ''); setTimeout(done, 300)"),
    (
        "an image",
        "const image = new Image(); image.onload = image.onerror = done; image.src = target; \
      document.body.append(image)",
    ),
];

fn page(target: &str, way: &str) -> String {
    format!(
        "<!doctype html><title>other</title><body><iframe name=hidden></iframe><script>\
         const target = {target:?};\
         const done = () => document.body.dataset.done = 1;\
         const form = (kind, fields) => {{\
           const form = document.createElement('form');\
           Object.assign(form, {{method: 'post', action: target, enctype: kind, target: 'hidden'}});\
           for (const [name, value] of fields) {{\
             const field = document.createElement('input');\
             Object.assign(field, {{name, value}}); form.append(field);\
           }}\
           document.body.append(form);\
           document.querySelector('iframe').onload = done; form.submit();\
         }};\
         {way}</script>"
    )
}

#[tokio::test]
async fn another_sites_page_changes_reads_and_frames_nothing() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(1))?;
    let exporter = scene::guarded_exporter(fake.home(), "").await?;
    wait_for_instances(&exporter.read, "app-0", Status::Online, 1).await?;
    let poller = scene::poller(&[Server::of("vm1", &exporter)], "").await?;
    poller.wait_for("vm1", "online").await?;

    let shown = Arc::new(Mutex::new(String::new()));
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = other.local_addr()?.port();
    let showing = Arc::clone(&shown);
    let show = move || {
        let text = showing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        async move { Html(text) }
    };
    let router = Router::new().fallback(show);
    tokio::spawn(async move { axum::serve(other, router).await });
    let show = |text: String| *shown.lock().unwrap_or_else(PoisonError::into_inner) = text;

    let browser = Browser::start().await?;
    let own_port = poller.program.launch().address();
    let own_port = own_port.rsplit(':').next().context("no port")?;
    for (host, others) in [
        ("127.0.0.1", ["127.0.0.1", "evil.example"]),
        // Without TLS and by a name, a browser says less of where a request comes from.
        ("fleet.example", ["other.fleet.example", "evil.example"]),
    ] {
        let base = format!("http://{host}:{own_port}");
        browser.sign_in(&base, &poller.token).await?;
        for other in others {
            let other = format!("http://{other}:{port}/");
            for path in [
                "/servers/vm1/apps/app-0/restart",
                "/api/commands/vm1/apps/app-0/restart",
                "/api/tokens/admin",
                "/logout",
                "/login",
            ] {
                for (name, way) in WAYS {
                    show(page(&format!("{base}{path}"), way));
                    browser.open(&other).await?;
                    let tried = browser.find("body[data-done]").await;
                    tried.with_context(|| format!("{name} to {path} from {other}"))?;
                }
            }
            // Nor is anything read, or shown in a frame.
            show(format!(
                "<!doctype html><title>other</title><body><iframe src='{base}/'></iframe><script>\
                 fetch('{base}/api/servers', {{credentials: 'include'}})\
                   .then(it => it.text()).catch(() => 'nothing')\
                   .then(text => document.body.dataset.done = text)</script>"
            ));
            browser.complaints().await?;
            browser.open(&other).await?;
            browser.find("body[data-done]").await?;
            let read = browser.run("return document.body.dataset.done").await?;
            assert_eq!(read, "nothing", "{other} reads {base}");
            let mut all = Vec::new();
            let refused = wait_until("the frame is refused", SOON, async || {
                all.extend(browser.complaints().await.ok()?);
                all.iter().any(|it| it.contains("frame")).then_some(())
            })
            .await;
            refused.with_context(|| format!("{other}: {all:#?}"))?;
        }
        // Still who they were: nobody was signed out, or in as somebody else.
        browser.open(&format!("{base}/sessions")).await?;
        browser.wait_for_text("main", "this one").await?;
    }
    let calls = fake.calls();
    let acts = calls.iter().filter(|(method, _)| method.contains("restart")).count();
    assert_eq!(acts, 0, "{calls:?}");
    let commands: Value = poller.admin.json("/api/commands").await?;
    assert_eq!(commands["commands"], serde_json::json!([]), "{commands}");
    assert_eq!(poller.admin.get("/api/me").await?.status, 200);
    // Each try that a browser made as somebody is on record as refused.
    let refused: Value = poller.admin.json("/api/audit?outcome=refused&limit=1000").await?;
    let rows = refused["audit"].as_array().context("no audit")?;
    assert!(rows.iter().any(|row| row["subject"].to_string().contains("/restart")), "{refused}");
    let acts: Value = poller.admin.json("/api/audit?act=token revoke").await?;
    assert_eq!(acts["audit"], serde_json::json!([]), "{acts}");
    Ok(())
}
