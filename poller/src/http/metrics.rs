//! `/metrics`: a view of the fleet now. A server that does not answer has no series but those
//! that say so, and one that left the registry has none at all.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dashboards::ServerStatus;
use exposition::{Family, Format, Kind, Labels, Source, Writer, write_states};
use service::problem::ProblemResponse;
use tokio::time::timeout;
use wire::Time;

use super::Reader;
use crate::access::Caller;
use crate::app::App;
use crate::fleet::Member;
use crate::store::Activity;

const UP: Family = Family {
    name: "pm2_server_up",
    kind: Kind::Gauge,
    labels: &[],
    help: "Whether the server's exporter answered the last poll.",
};
const LAST_SUCCESS: Family = Family {
    name: "pm2_server_last_success_timestamp_seconds",
    kind: Kind::Gauge,
    labels: &[],
    help: "When the server's exporter last answered.",
};
const DURATION: Family = Family {
    name: "pm2_server_poll_duration_seconds",
    kind: Kind::Gauge,
    labels: &[],
    help: "How long the last poll of the server took.",
};
const CLOCK: Family = Family {
    name: "pm2_server_clock_offset_seconds",
    kind: Kind::Gauge,
    labels: &[],
    help: "By how much the server's clock was ahead of the poller's at its last answer; below zero, behind.",
};
const LOST: Family = Family {
    name: "pm2_server_journal_lost_entries_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Entries of the server's journal that were gone before they were read.",
};
const CERTIFICATE: Family = Family {
    name: "pm2_server_certificate_expiry_timestamp_seconds",
    kind: Kind::Gauge,
    labels: &[],
    help: "When the certificate that the server's exporter showed last ends being good.",
};
const OWN_CERTIFICATE: Family = Family {
    name: "pm2_poller_certificate_expiry_timestamp_seconds",
    kind: Kind::Gauge,
    labels: &[],
    help: "When the poller's own certificate ends being good.",
};
const TOKEN: Family = Family {
    name: "pm2_poller_token_expiry_timestamp_seconds",
    kind: Kind::Gauge,
    labels: &["token"],
    help: "When tokens of the poller that were made for more than two weeks end being good.",
};
const QUEUE: Family = Family {
    name: "pm2_poller_store_queue_length",
    kind: Kind::Gauge,
    labels: &[],
    help: "Pieces of work that wait to be written to the database.",
};
const COMMITS: Family = Family {
    name: "pm2_poller_store_commits_total",
    kind: Kind::Counter,
    labels: &["result"],
    help: "Commits to the database by result.",
};
const COMMIT_TIME: Family = Family {
    name: "pm2_poller_store_commit_seconds_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Time that commits to the database took.",
};
const PIECES: Family = Family {
    name: "pm2_poller_store_pieces_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Pieces of work that commits were made of: what a server said, a command and the like.",
};
const INFO: Family = Family {
    name: "pm2_server_info",
    kind: Kind::Info,
    labels: &["group", "tags", "hostname", "exporter_version"],
    help: "What the registry and its exporter say of the server.",
};

/// Pages that are made at a time: of a large fleet each is tens of megabytes.
pub(crate) const SCRAPES: usize = 2;
/// Longest that one waits for its turn: as long as Prometheus waits unless it is told otherwise.
const TURN: Duration = Duration::from_secs(10);
/// A page smaller than this is sent as it is.
const WORTH_GZIP: usize = 1024;

pub(super) async fn show(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Response {
    let Ok(Ok(turn)) = timeout(TURN, Arc::clone(&app.scrapes).acquire_owned()).await else {
        let detail = format!("{SCRAPES} pages of metrics are being made, and others wait");
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return ProblemResponse::new(status, "busy", detail).into_response();
    };
    // Others are not kept waiting for that. It goes on when nobody waits for it any more, and so
    // does its turn.
    let make = move || {
        let _turn = turn;
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        let format = Format::from_accept(accept);
        let page = page(&app, &caller, format);
        app.gzip.answer(&headers, format.content_type(), page, WORTH_GZIP)
    };
    match crate::apart::spawn(make).await {
        Ok(response) => response,
        Err(error) => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            ProblemResponse::new(status, "internal", error.to_string()).into_response()
        }
    }
}

fn page(app: &App, caller: &Caller, format: Format) -> String {
    let stale_after = app.fleet.stale_after();
    let members: Vec<(Member, Labels, bool)> = app
        .fleet
        .all()
        .into_iter()
        .filter(|member| caller.may_see(&member.target.id))
        .map(|member| {
            let labels = Labels::new([("server", member.target.id.as_str())]);
            let up = member.status(stale_after) == ServerStatus::Online;
            (member, labels, up)
        })
        .collect();
    let mut writer = Writer::with_capacity(format, size(&members));
    servers(&mut writer, &members);
    writer.family(&CERTIFICATE, |samples| {
        for (member, labels, _) in &members {
            if let Some(time) = app.client.certificate_expires_at(&member.target) {
                samples.add(labels, time.as_seconds());
            }
        }
    });
    writer.family(&OWN_CERTIFICATE, |samples| {
        if let Some(time) = app.tls.as_ref().and_then(|tls| tls.expires_at()) {
            samples.add(&Labels::default(), time.as_seconds());
        }
    });
    // Names of tokens are for those who see everything.
    let expiries = if caller.sees_all() { app.access.expiries(Time::now()) } else { Vec::new() };
    writer.family(&TOKEN, |samples| {
        for (name, end) in &expiries {
            samples.add_with(&Labels::default(), &[("token", name)], end.as_seconds());
        }
    });
    let sources: Vec<Source<'_>> = members
        .iter()
        .filter(|(_, _, up)| *up)
        .filter_map(|(member, labels, _)| Some(Source { labels, state: member.state.as_deref()? }))
        .collect();
    write_states(&mut writer, &sources);
    app.notify.write(&mut writer);
    let (file, log) = app.store.sizes();
    for (name, size) in [("database", file), ("log", log)] {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        app.metrics.database_bytes.with_label_values(&[name]).set(size);
    }
    store(&mut writer, app.store.activity());
    writer.gathered(&app.metrics.registry.gather());
    writer.finish()
}

/// Most that a page has room for from the beginning.
const ROOM: usize = 64 << 20;

/// More than the page of most fleets: room that is not written to costs nothing, and to move the page
/// as it grows takes as long as to write it.
fn size(members: &[(Member, Labels, bool)]) -> usize {
    let processes = |(member, _, _): &(Member, Labels, bool)| {
        member.state.as_ref().map_or(0, |state| state.processes.len())
    };
    let things = members.len() + members.iter().map(processes).sum::<usize>();
    (64 * 1024 + things.saturating_mul(4 * 1024)).min(ROOM)
}

fn store(writer: &mut Writer, activity: Activity) {
    let none = Labels::default();
    let Activity { queue, commits, failed, pieces, seconds } = activity;
    writer.family(&QUEUE, |samples| samples.add(&none, queue as f64));
    writer.family(&COMMITS, |samples| {
        samples.add_with(&none, &[("result", "success")], commits as f64);
        samples.add_with(&none, &[("result", "failure")], failed as f64);
    });
    writer.family(&COMMIT_TIME, |samples| samples.add(&none, seconds));
    writer.family(&PIECES, |samples| samples.add(&none, pieces as f64));
}

fn servers(writer: &mut Writer, members: &[(Member, Labels, bool)]) {
    writer.family(&UP, |samples| {
        for (_, labels, up) in members {
            samples.add(labels, if *up { 1.0 } else { 0.0 });
        }
    });
    writer.family(&LAST_SUCCESS, |samples| {
        for (member, labels, _) in members {
            if let Some(time) = member.last_success {
                samples.add(labels, time.as_seconds());
            }
        }
    });
    writer.family(&DURATION, |samples| {
        for (member, labels, _) in members {
            if let Some(duration) = member.duration {
                samples.add(labels, duration.as_secs_f64());
            }
        }
    });
    writer.family(&CLOCK, |samples| {
        for (member, labels, _) in members.iter().filter(|(_, _, up)| *up) {
            if let Some(ahead) = member.clock_ahead {
                samples.add(labels, ahead as f64 / 1000.0);
            }
        }
    });
    writer.family(&LOST, |samples| {
        for (member, labels, _) in members {
            samples.add(labels, member.lost as f64);
        }
    });
    writer.family(&INFO, |samples| {
        for (member, labels, _) in members {
            let exporter = member.state.as_ref().map(|state| &state.exporter);
            // Commas around each tag, so that a query can look for ",prod,".
            let tags: String = match &member.target.tags[..] {
                [] => String::new(),
                tags => format!(",{},", tags.join(",")),
            };
            let more = [
                ("group", member.target.group.as_str()),
                ("tags", &tags),
                ("hostname", exporter.map_or("", |exporter| &exporter.hostname)),
                ("exporter_version", exporter.map_or("", |exporter| &exporter.version)),
            ];
            samples.add_with(labels, &more, 1.0);
        }
    });
}
