//! `GET /api/events/stream`: events as they are stored. Who reads too slowly is dropped, not
//! waited for; the list fills what they missed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use service::problem::ProblemResponse;
use tokio::sync::broadcast::error::RecvError;
use wire::ServerId;

use crate::access::Caller;
use crate::app::App;
use crate::http::params::Params;
use crate::http::{Reader, filter};
use crate::store::{EventFilter, StoredEvent};

/// Streams at a time.
const MOST: i64 = 1000;
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A place among the streams, given back when the stream ends.
struct Place(Arc<App>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.metrics.streams.dec();
    }
}

pub(super) async fn follow(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    mut params: Params,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ProblemResponse> {
    let filter = filter::events(&mut params, &caller)?;
    params.end()?;
    if app.metrics.streams.get() >= MOST {
        let detail = format!("{MOST} event streams are open already");
        return Err(ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail));
    }
    app.metrics.streams.inc();
    let receiver = app.events.subscribe();
    let start = (receiver, Place(app), filter, caller);
    let stream = unfold(start, async |(mut receiver, place, filter, caller)| {
        loop {
            let received = tokio::select! {
                () = place.0.shutdown.drain.cancelled() => return None,
                received = receiver.recv() => received,
            };
            match received {
                Ok(event) if wanted(&filter, &caller, &event) => {
                    let Ok(json) = serde_json::to_string(&*event) else { continue };
                    let item = Event::default().id(event.id.to_string()).data(json);
                    return Some((Ok(item), (receiver, place, filter, caller)));
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => {
                    place.0.metrics.streams_dropped.with_label_values(&["slow"]).inc();
                    return None;
                }
                Err(RecvError::Closed) => return None,
            }
        }
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn wanted(filter: &EventFilter, caller: &Caller, stored: &StoredEvent) -> bool {
    let server: &ServerId = &stored.server;
    let event = &stored.event;
    let app = event.app.as_ref().map(|app| app.as_str());
    caller.may_see(server)
        && filter.server.as_ref().is_none_or(|wanted| wanted == server)
        && filter.app.as_deref().is_none_or(|wanted| app == Some(wanted))
        && filter.kind.as_deref().is_none_or(|wanted| event.kind.as_str() == wanted)
        && filter.severity.is_none_or(|wanted| event.severity >= wanted)
}
