//! What is asked of an exporter at the moment somebody asks the poller: answers that no poll
//! brings. An exporter's refusal is told as one; that it cannot be reached is told as well.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Response as HttpResponse, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use serde::de::DeserializeOwned;
use service::problem::ProblemResponse;
use wire::Problem;

use super::place::Place;
use crate::client::{CallError, Client, Coming, read};
use crate::config::Target;

/// How long an exporter may take to begin an answer.
const BEGIN: Duration = Duration::from_secs(10);
/// How long it may take for a whole one.
const WHOLE: Duration = Duration::from_secs(20);
/// Largest problem that is read.
const MAX_PROBLEM: usize = 64 * 1024;

/// Marks an answer whose pieces are to leave as they come: packing them would hold them back.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Live;

/// Asks for JSON of at most `max` bytes and understands it.
pub(super) async fn json<T: DeserializeOwned>(
    client: &Client,
    target: &Target,
    path: &str,
    max: usize,
) -> Result<T, ProblemResponse> {
    let whole = async {
        let answer = begun(client, target, path, "application/json").await?;
        read(answer, max).await.map_err(|error| away(&error))
    };
    let body = tokio::time::timeout(WHOLE, whole)
        .await
        .unwrap_or_else(|_| Err(away(&CallError::Timeout(WHOLE))))?;
    serde_json::from_slice(&body).map_err(|_| {
        ProblemResponse::new(
            StatusCode::BAD_GATEWAY,
            "exporter_failed",
            "the exporter's answer makes no sense",
        )
    })
}

/// How text is passed on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Most bytes.
    pub(super) bytes: u64,
    /// How long the exporter may be silent.
    pub(super) silence: Duration,
}

/// What text is asked for as, and what it is to a browser, whatever the exporter calls it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    accept: &'static str,
    kind: &'static str,
}

/// Lines.
pub(super) const TEXT: Form = Form { accept: "text/plain", kind: "text/plain; charset=utf-8" };
/// Server-sent events.
pub(super) const EVENTS: Form = Form { accept: "text/event-stream", kind: "text/event-stream" };

/// Passes text on as it comes, until it ends, is too much, stays away for too long, its place is
/// lost, or the poller stops. What is cut off ends as a broken connection, not as a whole answer.
pub(super) async fn lines(
    client: &Client,
    target: &Target,
    path: &str,
    form: Form,
    bounds: Bounds,
    place: Place,
) -> Result<Response, ProblemResponse> {
    let coming = begun(client, target, path, form.accept).await?;
    let start = Some((coming, bounds.bytes, place));
    let pieces = unfold(start, move |state| async move {
        let (mut coming, left, mut place) = state?;
        let cut = |why: &str| Some((Err(std::io::Error::other(why.to_owned())), None));
        let piece = tokio::select! {
            biased;
            () = place.is_lost() => return None,
            piece = tokio::time::timeout(bounds.silence, coming.chunk()) => piece,
        };
        match piece {
            Ok(Ok(None)) => None,
            Ok(Ok(Some(piece))) => match left.checked_sub(piece.len() as u64) {
                Some(left) => Some((Ok::<Bytes, _>(piece), Some((coming, left, place)))),
                None => cut("the text is too long"),
            },
            Ok(Err(_)) => cut("the exporter's answer broke off"),
            Err(_) => cut("the exporter was silent for too long"),
        }
    });
    let answer = HttpResponse::builder()
        .header(header::CONTENT_TYPE, form.kind)
        .extension(Live)
        .body(Body::from_stream(pieces));
    Ok(answer.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response()))
}

async fn begun(
    client: &Client,
    target: &Target,
    path: &str,
    accept: &'static str,
) -> Result<Coming, ProblemResponse> {
    let answer = client.open(target, path, accept, BEGIN).await.map_err(|error| away(&error))?;
    match answer.status() {
        StatusCode::OK => Ok(answer),
        status => {
            let body = tokio::time::timeout(BEGIN, read(answer, MAX_PROBLEM)).await;
            let body = body.ok().and_then(Result::ok).unwrap_or_default();
            Err(refused(status, serde_json::from_slice(&body).ok()))
        }
    }
}

fn away(error: &CallError) -> ProblemResponse {
    let (status, kind) = match error {
        CallError::Timeout(_) => (StatusCode::GATEWAY_TIMEOUT, "no_answer"),
        CallError::TooLarge(_) | CallError::Broken(_) => {
            (StatusCode::BAD_GATEWAY, "exporter_failed")
        }
        CallError::Connect(_) | CallError::Credential(_) => {
            (StatusCode::BAD_GATEWAY, "unreachable")
        }
    };
    ProblemResponse::new(status, kind, format!("the exporter cannot be asked: {error}"))
}

/// What an exporter refuses is passed on where it is about what was asked for.
fn refused(status: StatusCode, problem: Option<Problem>) -> ProblemResponse {
    let said = problem.as_ref().map_or_else(
        || format!("the exporter answered {status}"),
        |problem| {
            let line = problem.detail.chars().map(|c| if c.is_control() { ' ' } else { c });
            line.take(500).collect()
        },
    );
    let kind = problem.map(|problem| problem.kind).unwrap_or_default();
    match (status, kind.as_str()) {
        // The poller's own token is meant, not that of who asked.
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => ProblemResponse::new(
            StatusCode::BAD_GATEWAY,
            "exporter_denied",
            format!("the exporter does not let this poller read it: {said}"),
        ),
        (StatusCode::NOT_FOUND, kind @ ("unknown_app" | "unknown_slot" | "unknown_deployment")) => {
            ProblemResponse::new(status, kind, said)
        }
        (StatusCode::SERVICE_UNAVAILABLE, kind @ ("busy" | "pm2_unavailable"))
        | (StatusCode::CONFLICT, kind @ "conflict")
        | (StatusCode::BAD_REQUEST, kind @ "bad_request") => {
            ProblemResponse::new(status, kind, said)
        }
        _ => ProblemResponse::new(StatusCode::BAD_GATEWAY, "exporter_failed", said),
    }
}
