use axum::Json;
use serde::Serialize;
use service::problem::ProblemResponse;
use wire::{ServerId, Time};

use crate::access::Limits;

use crate::http::Reader;
use crate::http::params::Params;

/// `GET /api/me`
#[derive(Serialize)]
pub(super) struct Me {
    /// Name of the token or user; `anonymous` without one.
    name: String,
    /// `token`, `session of a user`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<&'static str>,
    /// `viewer`, `operator` or `admin`.
    role: &'static str,
    /// The servers that they are limited to, as groups and tags name them now; absent for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    servers: Option<Vec<ServerId>>,
    /// What they are limited to, as it was said.
    #[serde(skip_serializing_if = "Limits::is_none")]
    limits: Limits,
    /// Until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Time>,
}

pub(super) async fn show(
    Reader(caller): Reader,
    params: Params,
) -> Result<Json<Me>, ProblemResponse> {
    params.end()?;
    Ok(Json(Me {
        name: caller.name().to_owned(),
        role: caller.role().as_str(),
        via: caller.via(),
        servers: caller.servers(),
        limits: caller.limits(),
        expires_at: caller.expires_at(),
    }))
}
