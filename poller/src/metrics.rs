//! The poller's metrics of itself.

use prometheus::core::{Collector, Metric};
use prometheus::{
    Counter, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, Result,
};
use wire::CommandStatus;

use crate::poll::{Reason, WAIT_RESULTS};
use crate::store::Tier;

/// Counters and gauges, registered.
#[derive(Debug)]
pub struct Metrics {
    /// All of them.
    pub registry: Registry,
    /// Polls by result: `success`, or the reason of the failure.
    pub polls: IntCounterVec,
    /// Requests that waited for events between polls, by how they ended: `events`, `quiet`,
    /// `not_stored`, or the reason of the failure.
    pub waits: IntCounterVec,
    /// How long polls took.
    pub poll_duration: Histogram,
    /// How late polls began.
    pub poll_lateness: Histogram,
    /// Journal entries stored, by kind.
    pub entries: IntCounterVec,
    /// Times that the store failed, by kind.
    pub store_errors: IntCounterVec,
    /// Commands by their final status.
    pub commands: IntCounterVec,
    /// Commands under way.
    pub commands_running: IntGauge,
    /// Commands that wait for their servers.
    pub commands_queued: IntGauge,
    /// Requests answered, by status.
    pub requests: IntCounterVec,
    /// Live event streams.
    pub streams: IntGauge,
    /// Events that slow stream readers missed.
    pub streams_dropped: IntCounterVec,
    /// Rows taken away by retention, by kind.
    pub removed: IntCounterVec,
    /// Blocks of history made, by tier.
    pub folded: IntCounterVec,
    /// Bytes of them, by tier.
    pub folded_bytes: IntCounterVec,
    /// Time that folding took, in seconds.
    pub fold_seconds: Counter,
    /// Blocks of history dropped because the database was too large, by tier.
    pub dropped: IntCounterVec,
    /// Copies of the database by schedule, by result.
    pub backups: IntCounterVec,
    /// When the last copy was made; 0 when none was.
    pub backup_time: IntGauge,
    /// Bytes and rows of the database by kind, looked at now and then.
    pub history_bytes: IntGaugeVec,
    /// Values in history by tier, likewise.
    pub history_values: IntGaugeVec,
    /// Whether the last reading of each file of servers worked.
    pub server_files: IntGaugeVec,
    /// Servers that are written down in more than one place.
    pub server_conflicts: IntGauge,
    /// Rows of what is no history, by kind, likewise.
    pub database_rows: IntGaugeVec,
    /// Whether the database was damaged and replaced when this process started.
    pub replaced: IntGauge,
    /// Sizes of the database's files, set when asked.
    pub database_bytes: IntGaugeVec,
    /// Whether the last reload of the configuration worked.
    pub reload_ok: IntGauge,
    /// When the configuration in use was read.
    pub reload_time: IntGauge,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// Two have the same name: a mistake in this file.
    pub fn new() -> Result<Self> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, label: &str| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), &[label])?)
        };
        let gauge = |name: &str, help: &str| register(&registry, IntGauge::new(name, help)?);
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            register(&registry, Histogram::with_opts(options)?)
        };
        let build = Opts::new("pm2_poller_build_info", "The poller itself.");
        let build = register(&registry, IntGaugeVec::new(build, &["version"])?)?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let sizes = Opts::new("pm2_poller_database_bytes", "Size of the database's files.");
        let metrics = Self {
            polls: counters("pm2_poller_polls_total", "Polls by result.", "result")?,
            waits: counters(
                "pm2_poller_waits_total",
                "Requests that waited for events between polls, by how they ended.",
                "result",
            )?,
            poll_duration: histogram(
                "pm2_poller_poll_duration_seconds",
                "How long polls took, from the first byte sent to all being checked and shown.",
                &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0],
            )?,
            poll_lateness: histogram(
                "pm2_poller_poll_lateness_seconds",
                "How late polls began.",
                &[0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 5.0],
            )?,
            entries: counters(
                "pm2_poller_journal_entries_total",
                "Journal entries stored, by kind.",
                "kind",
            )?,
            store_errors: counters(
                "pm2_poller_store_errors_total",
                "Times that the database failed, by kind.",
                "kind",
            )?,
            commands: counters(
                "pm2_poller_commands_total",
                "Commands by how they ended; unknown also those of which it is known later.",
                "status",
            )?,
            commands_running: gauge("pm2_poller_commands_running", "Commands under way.")?,
            commands_queued: gauge(
                "pm2_poller_commands_queued",
                "Commands that wait for their servers.",
            )?,
            requests: counters(
                "pm2_poller_http_requests_total",
                "Requests answered, by status.",
                "code",
            )?,
            streams: gauge(
                "pm2_poller_event_streams",
                "Live event streams and deployments' logs being read.",
            )?,
            streams_dropped: counters(
                "pm2_poller_event_streams_ended_total",
                "Live event streams that this program ended, by why.",
                "reason",
            )?,
            removed: counters(
                "pm2_poller_retention_removed_rows_total",
                "Rows taken away because they were old enough, by kind.",
                "kind",
            )?,
            folded: counters(
                "pm2_poller_history_blocks_written_total",
                "Blocks of history made, by tier.",
                "tier",
            )?,
            folded_bytes: counters(
                "pm2_poller_history_written_bytes_total",
                "Bytes of blocks of history made, by tier.",
                "tier",
            )?,
            fold_seconds: register(
                &registry,
                Counter::new(
                    "pm2_poller_history_fold_seconds_total",
                    "Time that making blocks of history took, waiting included.",
                )?,
            )?,
            dropped: counters(
                "pm2_poller_history_dropped_blocks_total",
                "Blocks of history dropped because the database was too large, by tier.",
                "tier",
            )?,
            backups: counters(
                "pm2_poller_backups_total",
                "Copies of the database by schedule, by result.",
                "result",
            )?,
            backup_time: gauge(
                "pm2_poller_backup_last_success_timestamp_seconds",
                "When the last copy of the database by schedule was made; 0 for never.",
            )?,
            history_bytes: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new(
                        "pm2_poller_history_bytes",
                        "Bytes of history by tier, as of at most ten minutes ago.",
                    ),
                    &["tier"],
                )?,
            )?,
            history_values: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new(
                        "pm2_poller_history_values",
                        "Values in history by tier, as of at most ten minutes ago.",
                    ),
                    &["tier"],
                )?,
            )?,
            server_files: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new(
                        "pm2_poller_server_file_last_read_successful",
                        "Whether the last reading of a file of servers worked.",
                    ),
                    &["file"],
                )?,
            )?,
            server_conflicts: gauge(
                "pm2_poller_server_conflicts",
                "Servers that are written down in more than one place.",
            )?,
            database_rows: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new(
                        "pm2_poller_database_rows",
                        "Rows of the database by kind, as of at most ten minutes ago.",
                    ),
                    &["kind"],
                )?,
            )?,
            replaced: gauge(
                "pm2_poller_database_replaced",
                "Whether the database was damaged and set aside when the poller started.",
            )?,
            database_bytes: register(&registry, IntGaugeVec::new(sizes, &["file"])?)?,
            reload_ok: gauge(
                "pm2_poller_config_last_reload_successful",
                "Whether the last reload of the configuration worked.",
            )?,
            reload_time: gauge(
                "pm2_poller_config_last_reload_success_timestamp_seconds",
                "When the configuration in use was read.",
            )?,
            registry,
        };
        metrics.show_zeros();
        Ok(metrics)
    }

    /// Polls begun, and those of them that began more than a second late.
    pub fn late_polls(&self) -> (u64, u64) {
        let metric = self.poll_lateness.metric();
        let lateness = metric.get_histogram();
        let all = lateness.get_sample_count();
        let in_time = lateness.get_bucket().iter().find(|bucket| bucket.upper_bound() >= 1.0);
        (all, all.saturating_sub(in_time.map_or(all, |bucket| bucket.cumulative_count())))
    }

    /// Files that list servers, and whether each could be used.
    pub fn server_files_used(&self) -> Vec<(String, bool)> {
        let families = self.server_files.collect();
        let files = families.iter().flat_map(|family| family.get_metric());
        files
            .filter_map(|file| {
                let name = file.get_label().first()?.value().to_owned();
                Some((name, file.get_gauge().get_value() != 0.0))
            })
            .collect()
    }

    /// A counter that appears with its first event has no rise that could be seen.
    fn show_zeros(&self) {
        self.polls.with_label_values(&["success"]);
        for reason in Reason::ALL {
            self.polls.with_label_values(&[reason.as_str()]);
            self.waits.with_label_values(&[reason.as_str()]);
        }
        for result in WAIT_RESULTS {
            self.waits.with_label_values(&[result]);
        }
        for kind in ["event", "sample"] {
            self.entries.with_label_values(&[kind]);
        }
        for tier in Tier::ALL {
            self.folded.with_label_values(&[tier.as_str()]);
            self.folded_bytes.with_label_values(&[tier.as_str()]);
            self.dropped.with_label_values(&[tier.as_str()]);
        }
        for result in ["success", "failure"] {
            self.backups.with_label_values(&[result]);
        }
        for kind in ["busy", "full", "corrupt", "failed"] {
            self.store_errors.with_label_values(&[kind]);
        }
        for status in CommandStatus::ALL.into_iter().filter(|status| status.is_final()) {
            self.commands.with_label_values(&[status.as_str()]);
        }
        self.streams_dropped.with_label_values(&["slow"]);
        for kind in
            ["sample", "minute", "hour", "recent", "event", "command", "audit", "name", "server"]
        {
            self.removed.with_label_values(&[kind]);
        }
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
