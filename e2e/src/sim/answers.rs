//! What requests ask for, and error answers, as the exporter has them.

use std::net::Ipv4Addr;
use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri, header};
use serde::Deserialize;
use service::problem::ProblemResponse;

use super::{Place, Sim, number};

/// Longest `?wait=`.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// The parameters of `/api/journal` and `/api/commands`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    pub(super) epoch: Option<String>,
    #[serde(default)]
    pub(super) after: u64,
    pub(super) limit: Option<usize>,
    wait: Option<String>,
    pub(super) known_state: Option<u64>,
    by: Option<String>,
}

impl Asked {
    pub(super) fn read(uri: &Uri) -> Result<Self, ProblemResponse> {
        let query = axum::extract::Query::<Self>::try_from_uri(uri);
        let asked = query.map_err(|error| ProblemResponse::bad_request(error.body_text()))?.0;
        if asked.epoch.as_ref().is_some_and(|epoch| !(1..=64).contains(&epoch.len())) {
            return Err(ProblemResponse::bad_request("epoch: 1 to 64 characters"));
        }
        if asked.limit.is_some_and(|limit| !(1..=wire::MAX_LIMIT).contains(&limit)) {
            let detail = format!("limit: is not 1 to {}", wire::MAX_LIMIT);
            return Err(ProblemResponse::bad_request(detail));
        }
        Ok(asked)
    }

    /// Who a command is by.
    pub(super) fn by(&self) -> String {
        self.by.as_ref().map_or("poller".to_owned(), |by| format!("{by} via poller"))
    }

    pub(super) fn wait(&self) -> Result<Duration, ProblemResponse> {
        let Some(text) = &self.wait else { return Ok(Duration::ZERO) };
        match service::quantity::duration(text) {
            Ok(wait) if wait <= MAX_WAIT => Ok(wait),
            Ok(_) => Err(ProblemResponse::bad_request("wait: is too long")),
            Err(error) => Err(ProblemResponse::bad_request(format!("wait: {error}"))),
        }
    }
}

impl Sim {
    /// The server that a request is for, if who asks may.
    pub(super) fn place(&self, parts: &Parts) -> Result<&Place, ProblemResponse> {
        let headers = &parts.headers;
        let place = host(headers)
            .and_then(number)
            .and_then(|number| self.places.get(number as usize))
            .ok_or_else(|| ProblemResponse::not_found("unknown_path", "no server is here"))?;
        if let Some(token) = &self.settings.token {
            let sent = service::token::bearer(headers);
            if sent != Some(token) {
                return Err(ProblemResponse::unauthorized("the token is not known here"));
            }
        }
        Ok(place)
    }
}

fn host(headers: &HeaderMap) -> Option<Ipv4Addr> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    host.split(':').next()?.parse().ok()
}
