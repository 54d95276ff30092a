use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};

use service::html::escape;

use super::Reads;
use crate::app::App;

/// What a person sees who opens the exporter in a browser: what it is, what PM2 runs, where
/// the rest is.
pub(super) async fn show(Reads(who): Reads, State(app): State<Arc<App>>) -> Response {
    let mut state = app.state().await;
    who.limit(&mut state);
    let several = app.homes.are_several();
    let pm2: Vec<String> = state.pm2_homes().iter().map(|pm2| in_words(pm2, several)).collect();
    let pm2 = pm2.join("; ");
    let mut rows = String::new();
    for process in &state.processes {
        let megabytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1_048_576.0);
        let _ = write!(
            rows,
            "<tr><th scope=\"row\"><bdi>{}</bdi></th>{}<td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&process.instance.name),
            match &process.instance.pm2_home {
                Some(home) => format!("<td>{}</td>", escape(home)),
                None => String::new(),
            },
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
         {home}<th scope=\"col\">Instance</th><th scope=\"col\">Status</th><th scope=\"col\">Memory</th>\
         <th scope=\"col\">Restarts</th></tr></thead><tbody>{rows}</tbody></table>\
         <ul><li><a href=\"/metrics\">/metrics</a></li><li><a href=\"/api/state\">/api/state</a></li>\
         <li><a href=\"/api/processes\">/api/processes</a></li><li><a href=\"/api/slots\">/api/slots</a></li>\
         <li><a href=\"/api/docs\">/api/docs</a>: all of it</li>\
         <li><a href=\"/api/journal\">/api/journal</a></li><li><a href=\"/readyz\">/readyz</a></li></ul>\
         </main></body></html>\n",
        host = escape(&state.exporter.hostname),
        version = escape(&state.exporter.version),
        count = state.processes.len(),
        home = if several { "<th scope=\"col\">PM2</th>" } else { "" },
    );
    let policy =
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";
    let mut response = Html(page).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

/// What a PM2 is.
fn in_words(pm2: &wire::Pm2State, several: bool) -> String {
    let home = escape(&pm2.home);
    match (&pm2.error, &pm2.version) {
        (Some(error), _) if several => format!("PM2 in {home} is not there: {}", escape(error)),
        (Some(error), _) => format!("PM2 is not there: {}", escape(error)),
        (None, Some(version)) => format!("PM2 {} in {home}", escape(version)),
        (None, None) => format!("PM2 in {home}"),
    }
}
