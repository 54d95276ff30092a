use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use exposition::compat::{self, Compat};
use exposition::{Format, Labels, Source, Writer, families, write_states};
use flate2::Compression;
use flate2::write::GzEncoder;

use wire::Time;

use super::Reads;
use crate::app::App;

/// A page smaller than this is sent as it is.
const WORTH_GZIP: usize = 1024;

pub(super) async fn show(_: Reads, State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let format = Format::from_accept(text(&headers, header::ACCEPT));
    let begun = Instant::now();
    let mut writer = Writer::new(format);
    match app.config.compat {
        Compat::None => {
            let state = app.state().await;
            let labels = &app.config.labels;
            write_states(&mut writer, &[Source { labels, state: &state }]);
        }
        other => {
            app.home.confirm(app.config.custom_metrics_max_age).await;
            let processes = app.home.table(|table| table.peers());
            compat::write(&mut writer, other, &processes, &app.host(), Time::now());
        }
    }
    let none = Labels::default();
    writer.family(&families::EXPORTER_RELOAD, |samples| {
        samples.add(&none, f64::from(u8::from(app.reloaded())));
    });
    writer.family(&families::EXPORTER_READ, |samples| {
        samples.add(&none, begun.elapsed().as_secs_f64());
    });
    let page = writer.finish();
    let mut response = if page.len() >= WORTH_GZIP && accepts_gzip(&headers) {
        match gzip(page.as_bytes()) {
            Ok(bytes) => ([(header::CONTENT_ENCODING, "gzip")], bytes).into_response(),
            Err(_) => page.into_response(),
        }
    } else {
        page.into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
    response
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    text(headers, header::ACCEPT_ENCODING).unwrap_or_default().split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        parts.next() == Some("gzip") && !parts.any(|part| matches!(part, "q=0" | "q=0.0"))
    })
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}
