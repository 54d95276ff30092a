//! `GET /api/alerts`: what holds now, whether anybody is told of it or not.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use service::problem::ProblemResponse;
use wire::{ServerId, Severity, Time};

use crate::access::Caller;
use crate::app::App;
use crate::http::params::{Params, Wrong};
use crate::http::{Reader, filter};
use crate::notify::{Held, Holding};

/// `GET /api/alerts`
#[derive(Serialize)]
pub(super) struct List {
    /// When the fleet was looked at last; absent before the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<Time>,
    /// What is told first, then the worst, then the newest.
    alerts: Vec<Alert>,
}

/// The fields of a `[[notify]]` webhook's alerts.
#[derive(Serialize)]
struct Alert {
    name: String,
    status: &'static str,
    severity: Severity,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<ServerId>,
    labels: BTreeMap<String, String>,
    summary: String,
    description: String,
    starts_at: Time,
    page: String,
}

/// What holds, of what a caller may see. What the poller says of itself names tokens, files and
/// receivers: it is for those from whom no server is hidden.
pub(in crate::http) fn holding(app: &App, caller: &Caller) -> Holding {
    app.alerts.holding(|server| match server {
        Some(server) => caller.may_see(server),
        None => caller.sees_all(),
    })
}

pub(super) async fn list(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Json<List>, ProblemResponse> {
    let wanted = Wanted::read(params)?;
    let Holding { as_of, alerts } = holding(&app, &caller);
    let alerts = alerts.into_iter().filter(|held| wanted.lets_through(held)).map(alert);
    Ok(Json(List { as_of, alerts: alerts.collect() }))
}

struct Wanted {
    server: Option<ServerId>,
    name: Option<String>,
    severity: Option<Severity>,
    firing: Option<bool>,
}

impl Wanted {
    fn read(mut params: Params) -> Result<Self, Wrong> {
        let wanted = Self {
            server: params.name("server")?,
            name: params.text("name")?,
            severity: params.parsed("severity", filter::severity)?,
            firing: params.parsed("status", |text| match text {
                "firing" => Ok(true),
                "pending" => Ok(false),
                _ => Err(format!("{text:?} is neither firing nor pending")),
            })?,
        };
        params.end()?;
        Ok(wanted)
    }

    fn lets_through(&self, held: &Held) -> bool {
        self.server.as_ref().is_none_or(|server| held.server.as_ref() == Some(server))
            && self.name.as_ref().is_none_or(|name| held.key.alert == *name)
            && self.severity.is_none_or(|severity| held.key.severity() >= severity)
            && self.firing.is_none_or(|firing| held.firing == firing)
    }
}

fn alert(held: Held) -> Alert {
    Alert {
        status: if held.firing { "firing" } else { "pending" },
        severity: held.key.severity(),
        summary: held.key.summary(),
        page: held.key.page(),
        server: held.server,
        description: held.active.description,
        starts_at: held.active.since,
        name: held.key.alert,
        labels: held.key.labels,
    }
}
