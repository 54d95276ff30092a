use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Serialize, Serializer};
use service::problem::ProblemResponse;
use wire::{AppName, ServerId, Time};

use super::{app_name, member};
use crate::app::App;
use crate::http::Reader;
use crate::http::error::store_failed;
use crate::http::params::Params;
use crate::store::{HistoryQuery, Point, Series};

/// Most steps of one answer, as Prometheus has it.
const MAX_STEPS: i64 = 11_000;
/// Steps of an answer whose `step` was not given, about.
const STEPS: i64 = 240;
/// Shortest step that is chosen where none is given, in milliseconds.
const SHORTEST: i64 = 10_000;
const HOUR: i64 = 3_600_000;

/// `GET /api/servers/{id}/apps/{app}/metrics`
#[derive(Debug, Serialize)]
pub(super) struct History {
    server: ServerId,
    app: AppName,
    from: Time,
    to: Time,
    step_seconds: f64,
    series: Vec<OneSeries>,
}

#[derive(Debug, Serialize)]
struct OneSeries {
    metric: String,
    unit: String,
    namespace: Box<str>,
    instance_id: u32,
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
            namespace: series.instance.namespace,
            instance_id: series.instance.instance_id,
            points: series.points.into_iter().map(OnePoint).collect(),
        }
    }
}

pub(super) async fn show(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    Path((id, name)): Path<(String, String)>,
    mut params: Params,
) -> Result<Json<History>, ProblemResponse> {
    let now = Time::now();
    let metrics = params.all("metric");
    let to = params.time("to", now)?.unwrap_or(now);
    let from = params.time("from", now)?.unwrap_or(to.plus_millis(-HOUR));
    let step = params.duration("step", std::time::Duration::from_secs(366 * 86_400))?;
    params.end()?;
    // The app need not be there now: its history stays.
    let server = member(&app, &caller, &id)?.target.id.clone();
    let name = app_name(&name)?;
    let step_millis = step_of(from, to, step.map(|step| step.as_millis() as i64))?;
    let query =
        HistoryQuery { server: server.clone(), app: name.clone(), metrics, from, to, step_millis };
    let series = app.store.history(&query).await.map_err(store_failed)?;
    Ok(Json(History {
        server,
        app: name,
        from,
        to,
        step_seconds: step_millis as f64 / 1000.0,
        series: series.into_iter().map(Into::into).collect(),
    }))
}

/// The step in milliseconds.
fn step_of(from: Time, to: Time, step: Option<i64>) -> Result<i64, ProblemResponse> {
    let range = to.millis_since(from);
    if range <= 0 {
        return Err(ProblemResponse::bad_request(format!("from: {from} is not before to, {to}")));
    }
    let step = step.unwrap_or_else(|| round_up((range / STEPS).max(SHORTEST)));
    if step < 1000 {
        return Err(ProblemResponse::bad_request(format!(
            "step: {step} ms is too short: at least 1s"
        )));
    }
    if range / step > MAX_STEPS {
        return Err(ProblemResponse::bad_request(format!(
            "step: {} s makes {} points; at most {MAX_STEPS} are given: ask for a longer step",
            step / 1000,
            range / step
        )));
    }
    Ok(step)
}

/// To a length that people know.
fn round_up(step: i64) -> i64 {
    const KNOWN: [i64; 12] = [10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 6 * 3600, 24 * 3600];
    KNOWN
        .into_iter()
        .map(|seconds| seconds * 1000)
        .find(|known| *known >= step)
        .unwrap_or_else(|| (step / (24 * HOUR) + 1) * 24 * HOUR)
}

#[cfg(test)]
mod tests {
    use super::*;

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
