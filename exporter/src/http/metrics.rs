use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use exposition::compat::{self, Compat, PeerProcess};
use exposition::{Format, Source, Writer, families, write_states};
use wire::Time;

use super::Reads;
use crate::app::App;
use crate::relay;

/// A page smaller than this is sent as it is.
const WORTH_GZIP: usize = 1024;

pub(super) async fn show(
    Reads(who): Reads,
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Response {
    let format = Format::from_accept(text(&headers, header::ACCEPT));
    let begun = Instant::now();
    let mut writer = Writer::new(format);
    let labels = &app.config.labels;
    let relayed = app.relays.read(&app.homes, labels, &who);
    let relayed = match app.config.compat {
        Compat::None => {
            let (mut state, relayed) = tokio::join!(app.state(), relayed);
            who.limit(&mut state);
            write_states(&mut writer, &[Source { labels, state: &state }]);
            relayed
        }
        other => {
            let ((), relayed) = tokio::join!(app.confirm(), relayed);
            let mut processes: Vec<PeerProcess> = Vec::new();
            for home in app.homes.all() {
                // Elsewhere a slot's name is one like any other.
                let is_first = Arc::ptr_eq(home, app.homes.first());
                let slot = |name: &str| app.slots.served_by(name).filter(|_| is_first);
                let seen = |it: &PeerProcess| who.sees(&it.name, slot(&it.name));
                processes.extend(home.peers().into_iter().filter(seen));
            }
            compat::write(&mut writer, other, labels, &processes, &app.host(), Time::now());
            relayed
        }
    };
    relay::write(&mut writer, &relayed);
    writer.family(&families::EXPORTER_RELOAD, |samples| {
        samples.add(labels, f64::from(u8::from(app.reloaded())));
    });
    writer.family(&families::EXPORTER_CERTIFICATE, |samples| {
        if let Some(time) = app.tls.as_ref().and_then(|tls| tls.expires_at()) {
            samples.add(labels, time.as_seconds());
        }
    });
    writer.family(&families::EXPORTER_READ, |samples| {
        samples.add(labels, begun.elapsed().as_secs_f64());
    });
    let kind = format.content_type();
    let mut response = app.gzip.answer(&headers, kind, writer.finish(), WORTH_GZIP);
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    response
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}
