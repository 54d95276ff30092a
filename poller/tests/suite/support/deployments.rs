//! Deployments of an exporter that does as it is told: their ids say what it answers.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::stream;
use serde_json::{Value, json};

use super::exporter::Exporter;

pub fn routes() -> Router<Exporter> {
    Router::new()
        .route("/api/slots/{slot}/deployments", get(list))
        .route("/api/slots/{slot}/deployments/{id}", get(one))
        .route("/api/slots/{slot}/deployments/{id}/log", get(log))
}

fn deployment(id: &str) -> Value {
    json!({
        "id": id, "slot": "a", "status": "healthy",
        "repository": "https://git.test/shop.git", "requested_by": "ci",
        "requested_at": "2026-01-31T12:00:00Z", "current": true, "kept": true,
    })
}

fn problem(status: StatusCode, kind: &str, detail: &str) -> Response {
    let body = json!({"type": kind, "title": "", "status": status.as_u16(), "detail": detail});
    (status, Json(body)).into_response()
}

async fn list(Path(slot): Path<String>) -> Response {
    match slot.as_str() {
        "a" => Json(json!({"deployments": [deployment("d1")]})).into_response(),
        _ => problem(StatusCode::NOT_FOUND, "unknown_slot", "there is no such slot"),
    }
}

async fn one(Path((_, id)): Path<(String, String)>) -> Response {
    match id.as_str() {
        "d1" => Json(deployment("d1")).into_response(),
        "denied" => problem(StatusCode::FORBIDDEN, "forbidden", "the scope read is needed"),
        "busy" => problem(StatusCode::SERVICE_UNAVAILABLE, "busy", "later"),
        "nonsense" => "{".into_response(),
        "redirect" => (StatusCode::FOUND, [("location", "http://127.0.0.1:1/")]).into_response(),
        _ => problem(StatusCode::NOT_FOUND, "unknown_deployment", "no\r\nsuch deployment"),
    }
}

async fn log(
    State(this): State<Exporter>,
    Path((_, id)): Path<(String, String)>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if id != "d1" {
        return problem(StatusCode::NOT_FOUND, "unknown_deployment", "no such deployment");
    }
    if query["follow"] != "true" {
        return ([("content-type", "text/html")], "==> cloning\n==> done\n").into_response();
    }
    // The second line comes once a test says so.
    let pieces = stream::unfold(0, move |sent| {
        let this = this.clone();
        async move {
            while sent == 1 && !this.lock().log_goes_on {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let line = ["==> cloning\n", "==> done\n"].get(sent)?;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(line.as_bytes())), sent + 1))
        }
    });
    Body::from_stream(pieces).into_response()
}
