//! One request to a receiver, and what its end means.

use std::time::{Duration, Instant};

use axum::http::{HeaderMap, StatusCode, header};

use super::body::body;
use super::book::Message;
use super::receiver::Receiver;
use crate::client::{CallError, Client};

/// How a delivery ended: also the label that it is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Delivery {
    /// The receiver took it.
    Success,
    /// No connection, or it broke.
    Connect,
    /// No answer in time.
    Timeout,
    /// It asks to be left alone for a while (429, or 503 with `Retry-After`).
    Limited,
    /// It will not take this (3xx, 4xx): the receiver's settings are wrong, most likely.
    Refused,
    /// It failed itself (5xx).
    Failed,
}

impl Delivery {
    /// Every end.
    pub const ALL: [Self; 6] =
        [Self::Success, Self::Connect, Self::Timeout, Self::Limited, Self::Refused, Self::Failed];

    /// The word used in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Limited => "limited",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Why a message was not taken. Nothing of the request, of the address or of what the receiver
/// answered is in it, since any of these can hold a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Undelivered {
    /// The kind.
    pub delivery: Delivery,
    /// In words.
    pub why: String,
    /// How long the receiver asks to be left alone.
    pub wait: Option<Duration>,
}

/// Sends it.
///
/// # Errors
/// It was not taken, or nobody knows: then it may come twice.
pub async fn send(
    client: &Client,
    receiver: &Receiver,
    message: &Message,
) -> Result<Duration, Undelivered> {
    let begun = Instant::now();
    let posted = client.post(
        &receiver.address.0,
        receiver.headers.clone(),
        receiver.tls.as_ref(),
        body(message, receiver).into_bytes(),
        receiver.timeout,
    );
    match posted.await {
        Ok((status, headers)) => judge(status, &headers).map(|()| begun.elapsed()),
        Err(error) => Err(Undelivered {
            delivery: match error {
                CallError::Timeout(_) => Delivery::Timeout,
                _ => Delivery::Connect,
            },
            why: error.to_string(),
            wait: None,
        }),
    }
}

fn judge(status: StatusCode, headers: &HeaderMap) -> Result<(), Undelivered> {
    let wait = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let delivery = match status.as_u16() {
        200..300 => return Ok(()),
        429 => Delivery::Limited,
        503 if wait.is_some() => Delivery::Limited,
        300..500 => Delivery::Refused,
        _ => Delivery::Failed,
    };
    let more = if status.is_redirection() { "; redirects are not followed" } else { "" };
    Err(Undelivered { delivery, why: format!("the receiver answered {status}{more}"), wait })
}
