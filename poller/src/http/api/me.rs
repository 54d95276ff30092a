use axum::Json;
use serde::Serialize;
use wire::ServerId;

use crate::http::Reader;

/// `GET /api/me`
#[derive(Serialize)]
pub(super) struct Me {
    /// Name of the token; `anonymous` without one.
    name: String,
    /// `viewer`, `operator` or `admin`.
    role: &'static str,
    /// The servers that the token is limited to; absent for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    servers: Option<Vec<ServerId>>,
}

pub(super) async fn show(Reader(caller): Reader) -> Json<Me> {
    Json(Me {
        name: caller.name().to_owned(),
        role: caller.role().as_str(),
        servers: caller.servers(),
    })
}
