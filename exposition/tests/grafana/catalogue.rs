//! Every metric that dashboards, rules and runbooks may ask for, with its labels.

use std::collections::{BTreeMap, BTreeSet};

use exposition::families;

use crate::promql;

/// What the poller serves beside the exporters' families. Every name is looked up in its source.
pub(crate) const OF_THE_POLLER: &[(&str, &[&str])] = &[
    ("pm2_server_up", &[]),
    ("pm2_server_last_success_timestamp_seconds", &[]),
    ("pm2_server_clock_offset_seconds", &[]),
    ("pm2_server_poll_duration_seconds", &[]),
    ("pm2_server_info", &["group", "tags", "hostname", "exporter_version"]),
    ("pm2_server_certificate_expiry_timestamp_seconds", &[]),
    ("pm2_poller_build_info", &["version"]),
    ("pm2_poller_certificate_expiry_timestamp_seconds", &[]),
    ("pm2_poller_token_expiry_timestamp_seconds", &["token"]),
    ("pm2_poller_notifications_total", &["receiver", "result"]),
    ("pm2_poller_notify_last_success_timestamp_seconds", &["receiver"]),
    ("pm2_poller_notify_waiting_alerts", &["receiver"]),
    ("pm2_poller_polls_total", &["result"]),
    ("pm2_poller_poll_duration_seconds", &["le"]),
    ("pm2_poller_poll_lateness_seconds", &["le"]),
    ("pm2_poller_journal_entries_total", &["kind"]),
    ("pm2_poller_store_errors_total", &["kind"]),
    ("pm2_poller_store_queue_length", &[]),
    ("pm2_poller_store_commits_total", &["result"]),
    ("pm2_poller_store_commit_seconds_total", &[]),
    ("pm2_poller_store_pieces_total", &[]),
    ("pm2_poller_database_rows", &["kind"]),
    ("pm2_poller_commands_total", &["status"]),
    ("pm2_poller_commands_running", &[]),
    ("pm2_poller_http_requests_total", &["code"]),
    ("pm2_poller_event_streams", &[]),
    ("pm2_poller_event_streams_ended_total", &["reason"]),
    ("pm2_poller_retention_removed_rows_total", &["kind"]),
    ("pm2_poller_database_bytes", &["file"]),
    ("pm2_server_journal_lost_entries_total", &[]),
    ("pm2_poller_server_file_last_read_successful", &["file"]),
    ("pm2_poller_server_conflicts", &[]),
    ("pm2_poller_config_last_reload_successful", &[]),
    ("pm2_poller_config_last_reload_success_timestamp_seconds", &[]),
];

/// Families that are announced and not served yet. Whoever serves one takes it from here.
pub(crate) const ANNOUNCED: &[(&str, &[&str])] = &[];

/// What Prometheus makes by itself.
const OF_PROMETHEUS: &[(&str, &[&str])] = &[
    ("up", &["server"]),
    ("ALERTS", &["alertname", "alertstate", "severity", "server", "namespace", "name", "slot"]),
    (
        "cause:pm2_process_restarts:increase10m",
        &["server", "pm2_home", "namespace", "name", "instance_id", "cause"],
    ),
    ("server:pm2_process_state:count", &["server", "state"]),
    ("server:pm2_host_cpu_busy:ratio5m", &["server"]),
];

pub(crate) type Catalogue = BTreeMap<String, BTreeSet<String>>;

/// All of them.
pub(crate) fn catalogue() -> Catalogue {
    let of_exporters = families::ALL.iter().map(|family| (family.name, family.labels));
    let all = of_exporters.chain([OF_THE_POLLER, ANNOUNCED, OF_PROMETHEUS].concat());
    all.map(|(name, labels)| {
        let place: &[&str] = match name {
            name if name.starts_with("pm2_process_") => {
                &["server", "pm2_home", "name", "namespace", "instance_id"]
            }
            "pm2_up"
            | "pm2_info"
            | "pm2_last_confirmed_timestamp_seconds"
            | "pm2_table_drifts_total"
            | "pm2_dump_missing_processes"
            | "pm2_dump_extra_processes" => &["server", "pm2_home"],
            name if name.starts_with("pm2_slot_") => &["server", "slot"],
            name if name.starts_with("pm2_poller_") => &[],
            name if name.starts_with("pm2_") => &["server"],
            _ => &[],
        };
        // These two every scrape adds.
        let labels = labels.iter().chain(place).chain(&["job", "instance"]);
        (name.to_owned(), labels.map(|label| (*label).to_owned()).collect())
    })
    .collect()
}

/// What is wrong with the metrics and labels of an expression.
pub(crate) fn mistakes(expression: &str, catalogue: &Catalogue) -> Vec<String> {
    let read = promql::read(expression);
    let mut wrong = Vec::new();
    let mut known: BTreeSet<&str> = read.made_labels.iter().map(String::as_str).collect();
    for selector in &read.selectors {
        let name = &selector.metric;
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| catalogue.get(name.strip_suffix(end)?))
            .or_else(|| catalogue.get(name));
        let Some(labels) = family else {
            wrong.push(format!("no metric is called {name:?}"));
            continue;
        };
        for label in selector.labels.iter().filter(|label| !labels.contains(*label)) {
            wrong.push(format!("{name} has no label {label:?}"));
        }
        known.extend(labels.iter().map(String::as_str));
    }
    for label in read.grouping.iter().filter(|label| !known.contains(label.as_str())) {
        wrong.push(format!("grouped by {label:?}, which none of its metrics has"));
    }
    wrong
}
