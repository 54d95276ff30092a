//! The exporter's OpenAPI document.

use axum::response::Response;
use service::openapi::Document;

/// The shapes that both programs share, then the exporter's own.
pub static DOCUMENT: Document =
    Document::new(&[wire::OPENAPI, include_str!("../../openapi.yaml")], env!("CARGO_PKG_VERSION"));

pub(super) async fn json() -> Response {
    DOCUMENT.json()
}

pub(super) async fn page() -> Response {
    DOCUMENT.page()
}
