//! One page for all who look at the same: when something happens, every open page is fetched
//! again by its script, and hundreds of viewers would have the same thing made hundreds of times.
//!
//! A script says in `X-Live` which event it heard of last. What was made for that event or a
//! later one, less than a second ago, for the same address and for somebody who may the same, is
//! given again; who comes while it is being made waits for it. It is packed once for all, too, and
//! names nobody. What people load themselves is always made.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use service::gzip::{Gzip, accepts_gzip};
use service::problem::ProblemResponse;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::visitor::LIVE;
use crate::app::App;

/// How long a page is given again.
const FRESH: Duration = Duration::from_secs(1);
/// Most pages kept; beyond them each is made by itself.
const MOST: usize = 200;
/// Largest page kept, in bytes.
const LARGEST: usize = 4 * 1024 * 1024;

/// Address, host and rights; whether it is packed.
type Key = (String, String, String, bool);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Shared {
    kept: Mutex<HashMap<Key, Kept>>,
}

#[derive(Clone, Debug)]
struct Kept {
    since: Instant,
    /// The newest event that the first who asked had heard of.
    event: u64,
    page: Arc<OnceCell<Made>>,
}

#[derive(Clone, Debug)]
struct Made {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// The middleware.
pub(super) async fn share(
    State((app, shared)): State<(Arc<App>, Arc<Shared>)>,
    request: Request,
    next: Next,
) -> Response {
    let live = request.headers().get(LIVE).and_then(|it| it.to_str().ok()?.parse().ok());
    let Some(event) = live.filter(|_| request.method() == Method::GET) else {
        return next.run(request).await;
    };
    // Who may see something is asked every time.
    let Ok(caller) = app.access.caller(request.headers()).await else {
        return next.run(request).await;
    };
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.unwrap_or_default().to_owned();
    let packed = accepts_gzip(request.headers());
    let key = (request.uri().to_string(), host, caller.rights(), packed);
    let Some(page) = shared.page(key, event, Instant::now()) else {
        return next.run(request).await;
    };
    let gzip = packed.then_some(&app.gzip);
    let made = page.get_or_init(|| async { make(next.run(request).await, gzip).await }).await;
    let mut response = Response::new(Body::from(made.body.clone()));
    *response.status_mut() = made.status;
    *response.headers_mut() = made.headers.clone();
    response
}

async fn make(response: Response, gzip: Option<&Gzip>) -> Made {
    let (mut parts, body) = response.into_parts();
    match to_bytes(body, LARGEST).await {
        Ok(mut body) => {
            if let Some(small) = gzip.and_then(|gzip| gzip.pack(&body)) {
                body = small.into();
                let gzip = HeaderValue::from_static("gzip");
                parts.headers.insert(header::CONTENT_ENCODING, gzip);
                parts.headers.remove(header::CONTENT_LENGTH);
            }
            Made { status: parts.status, headers: parts.headers, body }
        }
        Err(error) => {
            tracing::error!(%error, "a page is too large to be shared");
            let detail = "the page is too large to be refreshed by itself";
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            let problem = ProblemResponse::new(status, "internal", detail).into_response();
            Made { status, headers: problem.headers().clone(), body: Bytes::from_static(b"") }
        }
    }
}

impl Shared {
    /// The place of a page that is new enough; `None` when there is no more room.
    fn page(&self, key: Key, event: u64, now: Instant) -> Option<Arc<OnceCell<Made>>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, it| now.duration_since(it.since) < FRESH);
        if let Some(it) = kept.get(&key).filter(|it| it.event >= event) {
            return Some(Arc::clone(&it.page));
        }
        if kept.len() >= MOST && !kept.contains_key(&key) {
            return None;
        }
        let page = Arc::default();
        kept.insert(key, Kept { since: now, event, page: Arc::clone(&page) });
        Some(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_shared_by_equals_until_something_happens() {
        let shared = Shared::default();
        let now = Instant::now();
        let key =
            |path: &str, caller: &str| (path.to_owned(), "h".to_owned(), caller.to_owned(), true);
        let page = |path, caller, event, after| {
            shared.page(key(path, caller), event, now + Duration::from_millis(after)).unwrap()
        };
        let first = page("/", "anna", 7, 0);
        assert!(Arc::ptr_eq(&first, &page("/", "anna", 7, 100)));
        assert!(Arc::ptr_eq(&first, &page("/", "anna", 0, 999)));
        assert!(!Arc::ptr_eq(&first, &page("/", "ben", 7, 100)));
        assert!(!Arc::ptr_eq(&first, &page("/events", "anna", 7, 100)));
        let later = page("/", "anna", 8, 200);
        assert!(!Arc::ptr_eq(&first, &later), "something happened");
        assert!(Arc::ptr_eq(&later, &page("/", "anna", 7, 300)), "newer serves as well");
        assert!(!Arc::ptr_eq(&later, &page("/", "anna", 8, 1300)), "it is old");
        for number in 0..MOST {
            let _ = shared.page(key(&number.to_string(), ""), 0, now);
        }
        assert!(shared.page(key("one too many", ""), 0, now).is_none());
    }

    #[tokio::test]
    async fn a_page_is_packed_for_who_takes_it() {
        let page = "a page ".repeat(1000);
        let made = make(page.clone().into_response(), Some(&Gzip::default())).await;
        assert_eq!(made.headers[header::CONTENT_ENCODING], "gzip");
        assert!(made.body.len() < 500, "{}", made.body.len());
        let mut text = String::new();
        let mut unpack = flate2::read::GzDecoder::new(&made.body[..]);
        std::io::Read::read_to_string(&mut unpack, &mut text).unwrap();
        assert_eq!(text, page);
        let plain = make(page.into_response(), None).await;
        assert_eq!((plain.headers.get(header::CONTENT_ENCODING), plain.body.len()), (None, 7000));
    }
}
