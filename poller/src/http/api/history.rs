//! History over HTTP: of an app's processes, of a server's machine; JSON, or CSV.

mod csv;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Serialize, Serializer};
use service::problem::ProblemResponse;
use wire::{AppName, ServerId, SmolStr, Time};

use super::{app_name, past_or_present};
use crate::app::App;
use crate::http::Reader;
use crate::http::error::store_failed;
use crate::http::params::Params;
use crate::store::{HistoryQuery, MAX_STEPS, Point, Series, Subject, known_step};

/// Steps of an answer whose `step` was not given, about.
const STEPS: i64 = 240;
const HOUR: i64 = 3_600_000;

#[derive(Debug, Serialize)]
struct History {
    server: ServerId,
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<AppName>,
    from: Time,
    to: Time,
    step_seconds: f64,
    series: Vec<OneSeries>,
}

#[derive(Debug, Serialize)]
struct OneSeries {
    metric: String,
    unit: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<SmolStr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pm2_home: Option<SmolStr>,
    points: Vec<OnePoint>,
}

/// `[time, min, mean, max]`
#[derive(Debug)]
struct OnePoint(Point);

impl Serialize for OnePoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Point { time, min, mean, max } = self.0;
        (time, min, mean, max).serialize(serializer)
    }
}

impl From<Series> for OneSeries {
    fn from(series: Series) -> Self {
        Self {
            metric: series.metric,
            unit: series.unit,
            instance_id: series.instance.as_ref().map(|instance| instance.instance_id),
            pm2_home: series.instance.as_ref().and_then(|instance| instance.pm2_home.clone()),
            namespace: series.instance.map(|instance| instance.namespace),
            points: series.points.into_iter().map(OnePoint).collect(),
        }
    }
}

/// `GET /api/servers/{id}/apps/{app}/metrics`
pub(super) async fn of_app(
    reader: Reader,
    State(app): State<Arc<App>>,
    Path((id, name)): Path<(String, String)>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, ProblemResponse> {
    show(&app, reader, &id, Some(&name), &headers, params).await
}

/// `GET /api/servers/{id}/metrics`
pub(super) async fn of_host(
    reader: Reader,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, ProblemResponse> {
    show(&app, reader, &id, None, &headers, params).await
}

async fn show(
    app: &App,
    Reader(caller): Reader,
    id: &str,
    name: Option<&str>,
    headers: &HeaderMap,
    mut params: Params,
) -> Result<Response, ProblemResponse> {
    let now = Time::now();
    let metrics = params.all("metric");
    let to = params.time("to", now)?.unwrap_or(now);
    let from = params.time("from", now)?.unwrap_or(to.plus_millis(-HOUR));
    let step = params.duration("step", std::time::Duration::from_secs(366 * 86_400))?;
    let csv = match params.text("format")?.as_deref() {
        None => accepts_csv(headers),
        Some("csv") => true,
        Some("json") => false,
        Some(other) => {
            let other: String = other.chars().take(40).collect();
            return Err(ProblemResponse::bad_request(format!(
                "format: {other:?} is not known: json or csv"
            )));
        }
    };
    let home = if name.is_some() { params.text("pm2_home")? } else { None };
    params.end()?;
    // Neither the app nor the server need be there now: their history stays.
    let server = past_or_present(app, &caller, id)?;
    let name = name.map(app_name).transpose()?;
    let subject = name.clone().map_or(Subject::Host, Subject::App);
    let step = step.map(|step| step.as_millis() as i64);
    let step_millis = step_of(from, to, step)?;
    let query = HistoryQuery { server: server.clone(), subject, metrics, from, to, step_millis };
    let read = match step {
        Some(_) => app.store.history(&query).await.map(|series| (step_millis, series)),
        None => app.store.fitting(query).await,
    };
    let (step_millis, mut series) = read.map_err(store_failed)?;
    if let Some(home) = home {
        series.retain(|it| it.is_in(&home));
    }
    // It may be megabytes: polls are waiting.
    let write = move || {
        if csv {
            // A machine's own are no app's: one may well be called `host`.
            let name = name.as_ref().map_or("", AppName::as_str);
            return csv::response(&server, name, &series);
        }
        Json(History {
            server,
            app: name,
            from,
            to,
            step_seconds: step_millis as f64 / 1000.0,
            series: series.into_iter().map(Into::into).collect(),
        })
        .into_response()
    };
    crate::apart::spawn(write).await.map_err(|error| {
        tracing::error!(%error, "history could not be written down");
        ProblemResponse::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "see the poller's log")
    })
}

/// Whether CSV is asked for and JSON is not.
fn accepts_csv(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let mut kinds = accept.unwrap_or_default().split(',').map(|it| it.split(';').next());
    let first = kinds
        .find(|kind| matches!(kind.map(str::trim), Some("text/csv" | "application/json" | "*/*")));
    first.flatten().map(str::trim) == Some("text/csv")
}

/// The step in milliseconds.
fn step_of(from: Time, to: Time, step: Option<i64>) -> Result<i64, ProblemResponse> {
    let range = to.millis_since(from);
    if range <= 0 {
        return Err(ProblemResponse::bad_request(format!("from: {from} is not before to, {to}")));
    }
    let step = step.unwrap_or_else(|| known_step(range / STEPS));
    if step < 1000 {
        return Err(ProblemResponse::bad_request(format!(
            "step: {step} ms is too short: at least 1s"
        )));
    }
    if range / step > i64::from(MAX_STEPS) {
        return Err(ProblemResponse::bad_request(format!(
            "step: {} s makes {} points; at most {MAX_STEPS} are given: ask for a longer step",
            step / 1000,
            range / step
        )));
    }
    Ok(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_is_given_to_who_asks_for_it() {
        let accepts = |accept: &'static str| {
            let headers = [(header::ACCEPT, axum::http::HeaderValue::from_static(accept))];
            accepts_csv(&headers.into_iter().collect())
        };
        assert!(accepts("text/csv") && accepts("text/html, text/csv;q=0.9, */*;q=0.1"));
        assert!(!accepts("*/*") && !accepts("application/json, text/csv") && !accepts(""));
    }

    #[test]
    fn steps_are_chosen_and_bounded() {
        let at = Time::from_millis;
        let step =
            |range, step| step_of(at(0), at(range), step).map_err(|it| it.problem().detail.clone());
        assert_eq!(step(HOUR, None), Ok(15_000));
        assert_eq!(step(24 * HOUR, None), Ok(600_000));
        assert_eq!(step(HOUR, Some(1000)), Ok(1000));
        assert!(step(HOUR, Some(100)).unwrap_err().contains("at least 1s"));
        assert!(step(48 * HOUR, Some(10_000)).unwrap_err().contains("17280 points"));
        assert!(step(0, None).unwrap_err().contains("is not before"));
    }
}
