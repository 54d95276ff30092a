use axum::extract::{Path, RawQuery};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use service::problem::ProblemResponse;

pub(super) async fn show(
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let Some(asset) = dashboards::asset(&name) else {
        return ProblemResponse::not_found("unknown_path", "there is no such file").into_response();
    };
    let hash = asset.hash();
    let tag = format!("\"{hash}\"");
    let named = query.is_some_and(|query| query == format!("v={hash}"));
    let keep = if named { "public, max-age=31536000, immutable" } else { "public, no-cache" };
    let known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .any(|value| value.as_bytes().windows(tag.len()).any(|part| part == tag.as_bytes()));
    let fields = [
        (header::CONTENT_TYPE, asset.content_type.to_owned()),
        (header::CACHE_CONTROL, keep.to_owned()),
        (header::ETAG, tag),
    ];
    if known {
        return (StatusCode::NOT_MODIFIED, fields).into_response();
    }
    (fields, asset.body).into_response()
}
