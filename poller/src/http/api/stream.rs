//! `GET /api/events/stream`: events as they are stored, by rising number. Who comes back with
//! `Last-Event-ID` (a browser does by itself) gets first what the store has of what they missed,
//! without gap or double, and is told of what is there no more. Who reads too slowly is dropped,
//! not waited for, and can come back.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde_json::json;
use service::problem::ProblemResponse;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use wire::ServerId;

use super::place::Place;
use crate::access::Caller;
use crate::app::App;
use crate::http::error::store_failed;
use crate::http::params::Params;
use crate::http::{Peer, Reader, filter};
use crate::store::{EventFilter, StoredEvent};

const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events that are read from the store at a time.
const PAGE: usize = 500;
/// What a browser sends when it comes back.
const LAST_EVENT_ID: &str = "last-event-id";

/// One who follows.
struct Following {
    place: Place,
    filter: EventFilter,
    live: Receiver<Arc<StoredEvent>>,
    /// Everything up to this number was passed on, stands in `read`, or is not asked for.
    last: i64,
    /// Up to this number the store is read first.
    behind: Option<i64>,
    /// Nothing came live since the store was read: what fell behind meanwhile is read as well.
    anew: bool,
    read: VecDeque<StoredEvent>,
    /// To be told before what comes: what is there no more, or where this stands.
    first: Option<Event>,
}

pub(super) async fn follow(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    peer: Peer,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ProblemResponse> {
    let mut filter = filter::events(&mut params, &caller)?;
    let after = params.parsed("after", number)?;
    params.end()?;
    let sent =
        headers.get(LAST_EVENT_ID).map(|value| {
            value.to_str().map_err(|error| error.to_string()).and_then(number).map_err(|message| {
                ProblemResponse::bad_request(format!("Last-Event-ID: {message}"))
            })
        });
    // What a browser came to last is newer than the address that it began with.
    let after = sent.transpose()?.or(after);
    filter.limit = PAGE;
    let place = Place::take(&app, (caller, peer), None)?;
    // Before the store is looked at: what comes meanwhile comes twice, and never not at all.
    let live = app.store.follow();
    let newest = app.store.newest_event().await.map_err(store_failed)?;
    let mut following = Following {
        place,
        filter,
        live,
        last: newest,
        behind: None,
        anew: false,
        read: VecDeque::new(),
        first: Some(place_of(newest)),
    };
    if let Some(after) = after {
        let (newest, missing) = app.store.missing_events(after).await.map_err(store_failed)?;
        following.last = after.min(newest);
        (following.behind, following.anew) = (Some(newest), true);
        let told = after > 0 || following.filter.since.is_none();
        following.first = if told { gap(after, missing) } else { None };
    } else if following.filter.since.is_some() {
        // What happened since a time stands in the store.
        (following.last, following.behind, following.anew) = (0, Some(newest), true);
        following.first = None;
    }
    let stream = unfold(following, async |mut following| {
        let event = following.next().await?;
        Some((Ok(event), following))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn number(text: &str) -> Result<i64, String> {
    text.parse().ok().filter(|number| *number >= 0).ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        format!("{shown:?} is not the number of an event")
    })
}

/// Where a stream stands, without an event: whoever is dropped before the next comes back to here.
fn place_of(number: i64) -> Event {
    Event::default().id(number.to_string())
}

/// What somebody is told of events that are there no more.
fn gap(after: i64, missing: Option<u64>) -> Option<Event> {
    let message = match missing {
        Some(0) => return None,
        Some(1) => format!("1 event after {after} is kept no longer"),
        Some(missing) => format!("{missing} events after {after} are kept no longer"),
        None => format!("nobody knows what came after {after}: the database is another one"),
    };
    let data = json!({"after": after, "missing": missing, "message": message});
    Some(Event::default().event("gap").data(data.to_string()))
}

impl Following {
    /// What comes next; `None` ends the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if !self.place.is_kept() {
                return None;
            }
            if let Some(event) = self.read.pop_front() {
                if let Some(event) = written(&event) {
                    return Some(event);
                }
            } else if let Some(first) = self.first.take() {
                return Some(first);
            } else if let Some(until) = self.behind {
                self.catch_up(until).await?;
            } else if let Some(event) = self.wait().await? {
                return Some(event);
            }
        }
    }

    /// Reads a page of what was missed.
    async fn catch_up(&mut self, until: i64) -> Option<()> {
        self.filter.visible = self.place.caller().servers();
        let store = &self.place.app().store;
        let page = match store.events_between(&self.filter, self.last, until).await {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%error, "a stream of events ends: the store does not answer");
                return None;
            }
        };
        let last = page.rows.last().map(|event| event.id).filter(|_| page.more);
        self.last = last.unwrap_or(until);
        if !page.more {
            self.behind = None;
            self.first = Some(place_of(until));
        }
        self.read = page.rows.into();
        Some(())
    }

    /// The next that is stored; nothing where it is not asked for.
    async fn wait(&mut self) -> Option<Option<Event>> {
        let received = tokio::select! {
            () = self.place.is_lost() => return None,
            received = self.live.recv() => received,
        };
        match received {
            Ok(event) if event.id > self.last => {
                (self.last, self.anew) = (event.id, false);
                let wanted = wanted(&self.filter, self.place.caller(), &event);
                Some(if wanted { written(&event) } else { None })
            }
            // It was read from the store already.
            Ok(_) => Some(None),
            Err(RecvError::Lagged(_)) if self.anew => {
                let newest = self.place.app().store.newest_event().await.ok()?;
                self.behind = Some(newest);
                Some(None)
            }
            Err(RecvError::Lagged(_)) => {
                self.place.app().metrics.streams_dropped.with_label_values(&["slow"]).inc();
                None
            }
            Err(RecvError::Closed) => None,
        }
    }
}

fn written(event: &StoredEvent) -> Option<Event> {
    let json = serde_json::to_string(event).ok()?;
    Some(Event::default().id(event.id.to_string()).data(json))
}

fn wanted(filter: &EventFilter, caller: &Caller, stored: &StoredEvent) -> bool {
    let server: &ServerId = &stored.server;
    let event = &stored.event;
    let app = event.app.as_ref().map(|app| app.as_str());
    caller.may_see(server)
        && filter.server.as_ref().is_none_or(|wanted| wanted == server)
        && filter.app.as_deref().is_none_or(|wanted| app == Some(wanted))
        && filter.pm2_home.as_deref().is_none_or(|it| event.pm2_home.as_deref() == Some(it))
        && filter.kind.as_deref().is_none_or(|wanted| event.kind.as_str() == wanted)
        && filter.severity.is_none_or(|wanted| event.severity >= wanted)
}
