//! The audit over HTTP: pages of JSON, or all that fits as CSV or JSON lines.

use std::fmt::Write;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use service::problem::ProblemResponse;
use wire::{ServerId, Time};

use crate::access::{Caller, Role};
use crate::app::App;
use crate::http::Reader;
use crate::http::csv::field;
use crate::http::error::store_failed;
use crate::http::params::{Params, Wrong};
use crate::store::{AuditFilter, AuditRow, Store, StoreError};

/// Rows read at a time for a file.
const PIECE: usize = 1000;
const HEAD: &str =
    "id,time,who,via,address,act,outcome,server,subject,detail,command,repeats,hash\r\n";

/// `GET /api/audit`
#[derive(Debug, Serialize)]
struct List {
    /// Newest first.
    audit: Vec<AuditRow>,
    /// What to pass as `cursor` for older ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Csv,
    Lines,
}

impl Format {
    fn read(params: &mut Params, headers: &HeaderMap) -> Result<Self, Wrong> {
        let said = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        let accepted = match said.split([',', ';']).next().unwrap_or_default().trim() {
            "text/csv" => Self::Csv,
            "application/x-ndjson" | "application/jsonl" => Self::Lines,
            _ => Self::Json,
        };
        let given = params.parsed("format", |text| match text {
            "json" => Ok(Self::Json),
            "csv" => Ok(Self::Csv),
            "jsonl" => Ok(Self::Lines),
            _ => {
                let shown: String = text.chars().take(40).collect();
                Err(format!("{shown:?} is not known: json, csv or jsonl"))
            }
        })?;
        Ok(given.unwrap_or(accepted))
    }
}

/// Which rows are asked for; the limit is the caller's to set.
pub(in crate::http) fn filter(params: &mut Params, caller: &Caller) -> Result<AuditFilter, Wrong> {
    let now = Time::now();
    Ok(AuditFilter {
        visible: caller.servers(),
        server: params.name::<ServerId>("server")?.map(|server| server.to_string()),
        who: params.text("who")?,
        address: params.text("address")?,
        act: params.text("act")?,
        outcome: params.text("outcome")?,
        since: params.time("since", now)?,
        until: params.time("until", now)?,
        before: params.cursor(|text| text.parse().ok())?,
        limit: 0,
    })
}

/// Cuts the row that is one too many, and gives the cursor of what follows.
pub(in crate::http) fn older(rows: &mut Vec<AuditRow>, limit: usize) -> Option<String> {
    let more = rows.len() > limit;
    rows.truncate(limit);
    rows.last().filter(|_| more).map(|row| row.id.to_string())
}

pub(super) async fn list(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, ProblemResponse> {
    caller.require(Role::Admin)?;
    let mut filter = filter(&mut params, &caller)?;
    let format = Format::read(&mut params, &headers)?;
    let is_limited = !params.given("limit").is_empty();
    let limit = params.limit(100)?;
    params.end()?;
    if format != Format::Json {
        let most = if is_limited { limit } else { usize::MAX };
        // Before anything is sent, so that a database that fails is told as a problem.
        let first = piece(&app.store, &mut filter, most).await.map_err(store_failed)?;
        return Ok(file(format, app.store.clone(), filter, most, first));
    }
    filter.limit = limit + 1;
    let mut audit = app.store.audit(&filter).await.map_err(store_failed)?;
    let cursor = older(&mut audit, limit);
    Ok(Json(List { audit, cursor }).into_response())
}

/// The next rows of a file, and the filter moved behind them.
async fn piece(
    store: &Store,
    filter: &mut AuditFilter,
    most: usize,
) -> Result<Vec<AuditRow>, StoreError> {
    filter.limit = most.min(PIECE);
    let rows = store.audit(filter).await?;
    if let Some(last) = rows.last() {
        filter.before = Some(last.id);
    }
    Ok(rows)
}

/// Rows as they are read, so that a long file costs no memory. One that cannot be read to its
/// end is cut off in the middle of the transfer, which clients tell.
fn file(
    format: Format,
    store: Store,
    filter: AuditFilter,
    most: usize,
    first: Vec<AuditRow>,
) -> Response {
    let head = if format == Format::Csv { HEAD } else { "" };
    let start = (store, filter, most, Some(first), head.to_owned());
    let rows =
        stream::try_unfold(start, move |(store, mut filter, left, ready, mut text)| async move {
            let rows = match ready {
                Some(rows) => rows,
                None if left == 0 => Vec::new(),
                None => piece(&store, &mut filter, left).await.inspect_err(|error| {
                    tracing::error!(%error, "the audit was not sent to its end");
                })?,
            };
            let left = left - rows.len().min(left);
            for row in &rows {
                match format {
                    Format::Csv => write_csv(&mut text, row),
                    _ => {
                        text.push_str(&serde_json::to_string(row).unwrap_or_default());
                        text.push('\n');
                    }
                }
            }
            if text.is_empty() {
                return Ok::<_, StoreError>(None);
            }
            Ok(Some((text, (store, filter, left, None, String::new()))))
        });
    let (kind, name) = match format {
        Format::Csv => {
            ("text/csv; charset=utf-8; header=present", "attachment; filename=\"audit.csv\"")
        }
        _ => ("application/x-ndjson", "attachment; filename=\"audit.jsonl\""),
    };
    let mut response = Body::from_stream(rows).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CONTENT_DISPOSITION, HeaderValue::from_static(name));
    response
}

fn write_csv(out: &mut String, row: &AuditRow) {
    let text = |text: &Option<String>| field(text.as_deref().unwrap_or_default());
    let (who, address) = (field(&row.who), field(&row.address));
    let (act, outcome, subject) = (field(&row.act), field(&row.outcome), field(&row.subject));
    let repeats = row.repeats.map(|it| it.to_string()).unwrap_or_default();
    // Writing to a text does not fail.
    let _ = write!(
        out,
        "{},{},{who},{},{address},{act},{outcome},{},{subject},{},{},{repeats},{}\r\n",
        row.id,
        row.time.0,
        text(&row.via),
        text(&row.server),
        text(&row.detail),
        text(&row.command),
        row.hash
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{RowHash, Stamp};

    #[test]
    fn what_others_wrote_is_no_formula_and_breaks_no_line() {
        let row = AuditRow {
            id: 7,
            time: Stamp(Time::from_millis(0)),
            who: "=cmd|' /C calc'!A0".into(),
            via: None,
            address: "192.0.2.1".into(),
            act: "request".into(),
            outcome: "refused".into(),
            server: Some("vm1".into()),
            subject: "POST /a,\"b\"\r\n".into(),
            detail: Some("@SUM(1)".into()),
            command: None,
            repeats: Some(3),
            hash: RowHash([0xab; 32]),
        };
        let mut text = String::new();
        write_csv(&mut text, &row);
        let expected = format!(
            "7,1970-01-01T00:00:00.000Z,\"'=cmd|' /C calc'!A0\",,192.0.2.1,request,refused,vm1,\
             \"POST /a,\"\"b\"\"\r\n\",\"'@SUM(1)\",,3,{}\r\n",
            "ab".repeat(32)
        );
        assert_eq!(text, expected);
    }
}
