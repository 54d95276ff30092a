//! The poller's metrics of itself.

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, Result,
};
use wire::CommandStatus;

use crate::poll::{Reason, WAIT_RESULTS};

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
    /// Requests answered, by status.
    pub requests: IntCounterVec,
    /// Live event streams.
    pub streams: IntGauge,
    /// Events that slow stream readers missed.
    pub streams_dropped: IntCounterVec,
    /// Rows taken away by retention, by kind.
    pub removed: IntCounterVec,
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
                "How long polls took, from the first byte sent to all being stored.",
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
                "Commands by how they ended.",
                "status",
            )?,
            commands_running: gauge("pm2_poller_commands_running", "Commands under way.")?,
            requests: counters(
                "pm2_poller_http_requests_total",
                "Requests answered, by status.",
                "code",
            )?,
            streams: gauge("pm2_poller_event_streams", "Live event streams.")?,
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
        for kind in ["busy", "full", "failed"] {
            self.store_errors.with_label_values(&[kind]);
        }
        for status in CommandStatus::ALL.into_iter().filter(|status| status.is_final()) {
            self.commands.with_label_values(&[status.as_str()]);
        }
        self.streams_dropped.with_label_values(&["slow"]);
        for kind in ["sample", "event", "command", "name"] {
            self.removed.with_label_values(&[kind]);
        }
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
