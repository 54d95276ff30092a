use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};

use super::Reads;
use crate::app::App;

/// What a person sees who opens the exporter in a browser: what it is, what PM2 runs, where
/// the rest is.
pub(super) async fn show(_: Reads, State(app): State<Arc<App>>) -> Response {
    let state = app.state().await;
    let pm2 = match (&state.pm2.error, &state.pm2.version) {
        (Some(error), _) => format!("PM2 is not there: {}", escape(error)),
        (None, Some(version)) => format!("PM2 {} in {}", escape(version), escape(&state.pm2.home)),
        (None, None) => format!("PM2 in {}", escape(&state.pm2.home)),
    };
    let mut rows = String::new();
    for process in &state.processes {
        let megabytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1_048_576.0);
        let _ = write!(
            rows,
            "<tr><th scope=\"row\"><bdi>{}</bdi></th><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&process.instance.name),
            process.instance.instance_id,
            if process.online_without_pid {
                "online, but no such process"
            } else {
                process.status.as_str()
            },
            process.readings.memory_bytes.map_or_else(|| "–".to_owned(), megabytes),
            process.restarts.total(),
        );
    }
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>pm2-exporter on {host}</title><style>\
         :root{{color-scheme:light dark;font-family:system-ui,sans-serif;line-height:1.5}}\
         body{{margin:2rem auto;max-width:48rem;padding:0 1rem}}\
         table{{border-collapse:collapse;width:100%}}th,td{{text-align:left;padding:.3rem .6rem;\
         border-bottom:1px solid #8884;overflow-wrap:anywhere}}</style></head><body><main>\
         <h1>pm2-exporter</h1><p>{host}, version {version}. {pm2}.</p>\
         <table><caption>{count} processes</caption><thead><tr><th scope=\"col\">Name</th>\
         <th scope=\"col\">Instance</th><th scope=\"col\">Status</th><th scope=\"col\">Memory</th>\
         <th scope=\"col\">Restarts</th></tr></thead><tbody>{rows}</tbody></table>\
         <ul><li><a href=\"/metrics\">/metrics</a></li><li><a href=\"/api/state\">/api/state</a></li>\
         <li><a href=\"/api/processes\">/api/processes</a></li><li><a href=\"/api/slots\">/api/slots</a></li>\
         <li><a href=\"/api/journal\">/api/journal</a></li><li><a href=\"/readyz\">/readyz</a></li></ul>\
         </main></body></html>\n",
        host = escape(&state.exporter.hostname),
        version = escape(&state.exporter.version),
        count = state.processes.len(),
    );
    let policy =
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";
    let mut response = Html(page).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

/// Text as it may stand in HTML, in content and in attributes with double quotes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(letter),
        }
    }
    out
}
