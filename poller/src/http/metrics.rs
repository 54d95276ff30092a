//! `/metrics`: a view of the fleet now. A server that does not answer has no series but those
//! that say so, and one that left the registry has none at all.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use dashboards::ServerStatus;
use exposition::{Family, Format, Kind, Labels, Source, Writer, write_states};

use super::Reader;
use crate::app::App;
use crate::fleet::Member;

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
const LOST: Family = Family {
    name: "pm2_server_journal_lost_entries_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Entries of the server's journal that were gone before they were read.",
};
const INFO: Family = Family {
    name: "pm2_server_info",
    kind: Kind::Info,
    labels: &["group", "tags", "hostname", "exporter_version"],
    help: "What the registry and its exporter say of the server.",
};

pub(super) async fn show(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::from_accept(accept);
    let mut writer = Writer::new(format);
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
    servers(&mut writer, &members);
    let sources: Vec<Source<'_>> = members
        .iter()
        .filter(|(_, _, up)| *up)
        .filter_map(|(member, labels, _)| Some(Source { labels, state: member.state.as_deref()? }))
        .collect();
    write_states(&mut writer, &sources);
    let (file, log) = app.store.sizes();
    for (name, size) in [("database", file), ("log", log)] {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        app.metrics.database_bytes.with_label_values(&[name]).set(size);
    }
    writer.gathered(&app.metrics.registry.gather());
    ([(header::CONTENT_TYPE, format.content_type())], writer.finish()).into_response()
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
