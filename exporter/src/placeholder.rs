//! The page of a free slot: `pm2-exporter placeholder`, run by PM2 like any application.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use service::serve::Limits;
use service::shutdown::Shutdown;
use service::{Exit, Failure};
use wire::{SlotId, Time};

use crate::http::escape;

#[derive(Debug)]
struct Page {
    slot: SlotId,
    port: u16,
    html: String,
}

/// Serves until SIGTERM or SIGINT. `env` gives `PORT` and `SLOT_NAME`, and, where they are set,
/// `ADMIN_URL` and the slot's own address, `SLOT_A_URL` for slot `a`.
///
/// # Errors
/// A variable is missing or wrong (exit 2), or the port cannot be used (exit 3).
pub async fn serve(env: impl Fn(&str) -> Option<String>) -> Result<(), Failure> {
    let wrong = |message: String| Failure::new(Exit::Configuration, anyhow::anyhow!(message));
    let port = env("PORT").ok_or_else(|| wrong("PORT is not set".to_owned()))?;
    let port: u16 =
        port.parse().map_err(|_| wrong(format!("PORT: {port:?} is not a port: 0 to 65535")))?;
    let slot: SlotId = env("SLOT_NAME")
        .ok_or_else(|| wrong("SLOT_NAME is not set".to_owned()))?
        .parse()
        .map_err(|error| wrong(format!("SLOT_NAME: {error}")))?;
    let shutdown = Shutdown::on_signals().context("signals cannot be listened to")?;
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    // Not `serve::bind`: the page is made to be seen, and it can do nothing.
    let listener = tokio::net::TcpListener::bind(address).await.map_err(|error| {
        Failure::new(Exit::Listen, anyhow::anyhow!("port {port} cannot be used: {error}"))
    })?;
    let port = listener.local_addr().context("the listener has no address")?.port();
    let html = page(&slot, port, &env);
    let app = Router::new()
        .route("/", get(index))
        .route("/health", get(health))
        .fallback(async || Redirect::temporary("/"))
        .with_state(Arc::new(Page { slot, port, html }));
    let limits = Limits { connections: 256, ..Limits::default() };
    service::serve::serve(listener, app, limits, shutdown).await;
    Ok(())
}

async fn index(State(page): State<Arc<Page>>) -> Response {
    let mut response = Html(page.html.clone()).into_response();
    let policy =
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn health(State(page): State<Arc<Page>>) -> impl IntoResponse {
    let body = serde_json::json!({
        "status": "healthy",
        "slot": page.slot,
        "port": page.port,
        "timestamp": Time::now(),
        "type": "placeholder",
    });
    ([(header::CACHE_CONTROL, "no-store")], axum::Json(body))
}

fn page(slot: &SlotId, port: u16, env: impl Fn(&str) -> Option<String>) -> String {
    let link = |name: &str| {
        // Only what a link may be: no `javascript:`.
        env(name).filter(|url| url.starts_with("http://") || url.starts_with("https://"))
    };
    let own = format!("SLOT_{}_URL", slot.to_ascii_uppercase().replace('-', "_"));
    let address = match link(&own) {
        Some(url) => format!("<a href=\"{0}\">{0}</a>", escape(&url)),
        None => format!("port {port}"),
    };
    let admin = link("ADMIN_URL").map_or_else(String::new, |url| {
        format!("<p><a class=\"go\" href=\"{}\">Open the admin panel</a></p>", escape(&url))
    });
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>Slot {slot} is free</title><style>\
         :root{{color-scheme:light dark;font-family:system-ui,sans-serif;line-height:1.5}}\
         body{{margin:0;min-height:100vh;display:grid;place-items:center}}\
         main{{padding:2rem;max-width:34rem}}h1{{margin:0 0 .5rem;font-size:2rem}}\
         a.go{{display:inline-block;padding:.6rem 1.2rem;border:1px solid;border-radius:.4rem;text-decoration:none}}\
         </style></head><body><main><h1>Slot {slot}</h1>\
         <p>This slot is ready: nothing is deployed here yet.</p>\
         <p>What you deploy will be served at {address}.</p>{admin}</main></body></html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_from_the_environment_and_cannot_break_out() {
        let env = |name: &str| match name {
            "SLOT_A_URL" => Some("https://a.example/\"><script>".to_owned()),
            "ADMIN_URL" => Some("javascript:alert(1)".to_owned()),
            _ => None,
        };
        let html = page(&"a".parse().unwrap(), 3001, env);
        assert!(html.contains("https://a.example/&quot;&gt;&lt;script&gt;"), "{html}");
        assert!(!html.contains("javascript:"), "{html}");
        assert!(page(&"b".parse().unwrap(), 3002, env).contains("port 3002"));
    }
}
