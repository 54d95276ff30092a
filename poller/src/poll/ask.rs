//! The question that a poll asks, and what its answer means.

use std::fmt::Write as _;
use std::time::Duration;

use axum::http::StatusCode;
use wire::{JournalPage, Problem};

use super::check::PAGE;
use super::failure::{Failure, Reason};
use crate::store::Cursor;

/// The page after `cursor`, without the state when its revision is the known one.
pub(super) fn path(cursor: &Cursor, known_state: Option<u64>, wait: Option<Duration>) -> String {
    let mut path = String::with_capacity(128);
    // Nothing can go wrong in memory.
    let _ = write!(path, "/api/journal?after={}&limit={PAGE}", cursor.after);
    if !cursor.epoch.is_empty() {
        path.push_str("&epoch=");
        put_percent_encoded(&mut path, &cursor.epoch);
    }
    if let Some(revision) = known_state {
        let _ = write!(path, "&known_state={revision}");
    }
    if let Some(wait) = wait {
        let _ = write!(path, "&wait={}ms", wait.as_millis());
    }
    path
}

/// The page that an answer holds.
///
/// # Errors
/// It holds none.
pub(super) fn page(status: StatusCode, body: &[u8]) -> Result<JournalPage, Failure> {
    match status {
        StatusCode::OK => {
            let malformed = |error: &dyn std::fmt::Display| {
                Failure::new(Reason::Malformed, format!("not a journal page: {error}"))
            };
            // Looked at as a whole, which is quicker than text by text.
            let text = std::str::from_utf8(body).map_err(|error| malformed(&error))?;
            serde_json::from_str(text).map_err(|error| malformed(&error))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Failure::new(
            Reason::Unauthorized,
            format!("the exporter does not accept the token: {}", said(body, status)),
        )),
        status => Err(Failure::new(
            Reason::Status,
            format!("the exporter answered {}", said(body, status)),
        )),
    }
}

/// What an error answer says: its detail when it is one of ours, its status otherwise.
fn said(body: &[u8], status: StatusCode) -> String {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) if !problem.detail.is_empty() => {
            format!("{} ({})", status.as_u16(), problem.detail)
        }
        // What an HTTPS port says to plain HTTP.
        _ if status == StatusCode::BAD_REQUEST && body == service::serve::SPEAKS_TLS.as_bytes() => {
            "400 (this is an HTTPS port: is its address https://?)".to_owned()
        }
        _ => status.to_string(),
    }
}

/// For a query: everything but letters, digits and `-._~` is encoded.
pub(crate) fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    put_percent_encoded(&mut out, text);
    out
}

fn put_percent_encoded(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}
