//! Every `pm2_*` family of the contract: the one list that pages, dashboards and rules share.

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, but for restarts of what counts.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Quantiles alone, as Node.js reports them.
    Summary,
    /// Always 1; its labels are the content.
    Info,
}

/// A metric family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Name as it stands on the page (`_total` and `_info` included).
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Labels of its own, beyond those of the process, slot or server.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

macro_rules! families {
    ($($id:ident $kind:ident $name:literal [$($label:literal),*] $help:literal)*) => {
        $(#[doc = $help] pub const $id: Family =
            Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*

        /// All of them, in the order of the page.
        pub const ALL: &[Family] = &[$($id),*];
    };
}

families! {
    UP Gauge "pm2_up" []
        "Whether the PM2 daemon answered when it was last asked."
    INFO Info "pm2_info" ["version"]
        "The PM2 daemon."
    CONFIRMED Gauge "pm2_last_confirmed_timestamp_seconds" []
        "When the PM2 daemon last confirmed its process list."
    DRIFTS Counter "pm2_table_drifts_total" []
        "Times that a routine look at PM2's own list found what nothing had told, and mended it."

    DUMP_MISSING Gauge "pm2_dump_missing_processes" []
        "Processes that PM2 has and that its saved list lacks: a reboot would lose them."
    DUMP_EXTRA Gauge "pm2_dump_extra_processes" []
        "Processes that PM2's saved list has and that it does not have now."

    PROCESS_UP Gauge "pm2_process_up" []
        "Whether PM2 calls the process online and it exists."
    PROCESS_STATE Gauge "pm2_process_state" ["state"]
        "PM2's view of the process: 1 for the state it is in."
    PROCESS_CPU Counter "pm2_process_cpu_seconds_total" []
        "CPU time used by the process and its children, user and system."
    PROCESS_MEMORY Gauge "pm2_process_resident_memory_bytes" []
        "Resident memory of the process and its children."
    PROCESS_THREADS Gauge "pm2_process_threads" []
        "Threads of the process and its children."
    PROCESS_FDS Gauge "pm2_process_open_fds" []
        "Open file descriptors of the process and its children."
    PROCESS_START Gauge "pm2_process_start_time_seconds" []
        "When the running process was started."
    PROCESS_RESTARTS Counter "pm2_process_restarts_total" ["cause"]
        "Restarts by cause; not lowered by pm2 reset."
    PROCESS_EXCEPTIONS Counter "pm2_process_exceptions_total" []
        "Exceptions that the application reported: uncaught ones, and those that it caught and told of itself."
    PROCESS_LOG_BYTES Counter "pm2_process_log_bytes_total" ["stream"]
        "Bytes that the process wrote to its log."
    PROCESS_INFO Info "pm2_process_info"
        ["pm_id", "version", "node_version", "interpreter", "exec_mode"]
        "What the process is."
    PROCESS_LOOP Summary "pm2_process_event_loop_latency_seconds" ["quantile"]
        "Event loop latency as Node.js reports it."
    PROCESS_HEAP_USED Gauge "pm2_process_heap_used_bytes" []
        "Used part of the V8 heap."
    PROCESS_HEAP_SIZE Gauge "pm2_process_heap_size_bytes" []
        "Size of the V8 heap."
    PROCESS_HANDLES Gauge "pm2_process_active_handles" []
        "Active libuv handles."
    PROCESS_REQUESTS Gauge "pm2_process_active_requests" []
        "Active libuv requests."
    PROCESS_HTTP_RATE Gauge "pm2_process_http_requests_per_second" []
        "HTTP requests per second as the application reports them."
    PROCESS_HTTP_LATENCY Summary "pm2_process_http_latency_seconds" ["quantile"]
        "HTTP latency as the application reports it."
    PROCESS_CUSTOM Gauge "pm2_process_custom" ["metric", "unit"]
        "A metric of the application's own, in its own unit."

    SLOT_DEPLOYED Gauge "pm2_slot_deployed" []
        "Whether the slot runs an application, not the placeholder."
    SLOT_SERVING Gauge "pm2_slot_serving" []
        "Whether the slot's port accepts connections."
    SLOT_FOREIGN Gauge "pm2_slot_port_foreign_owner" []
        "Whether a process other than the slot's own holds its port."
    SLOT_INFO Info "pm2_slot_info" ["type", "repository", "branch", "commit"]
        "What the slot runs."
    SLOT_DEPLOYS Counter "pm2_slot_deploys_total" ["result"]
        "Deployments into the slot by result, healthy or failed, since the first."
    SLOT_LAST_DEPLOY Gauge "pm2_slot_last_deploy_timestamp_seconds" []
        "When the last deployment into the slot ended, well or not."

    HOST_CPU Counter "pm2_host_cpu_seconds_total" ["mode"]
        "CPU time of the host by mode, all cores."
    HOST_CPUS Gauge "pm2_host_cpus" []
        "Cores of the host."
    HOST_MEMORY_TOTAL Gauge "pm2_host_memory_total_bytes" []
        "Memory of the host."
    HOST_MEMORY_AVAILABLE Gauge "pm2_host_memory_available_bytes" []
        "Memory of the host that new programs could have."
    HOST_LOAD Gauge "pm2_host_load1" []
        "Load average of the host over one minute."
    HOST_FS_AVAIL Gauge "pm2_host_filesystem_avail_bytes" []
        "Free bytes of the file system that holds PM2's directory."
    HOST_FS_SIZE Gauge "pm2_host_filesystem_size_bytes" []
        "Size of the file system that holds PM2's directory."

    RELAY_UP Gauge "pm2_relay_up" ["target"]
        "Whether the application's own page was read; asked of the exporter itself."
    RELAY_SERIES Gauge "pm2_relay_series" ["target"]
        "Series of the application's own page that were relayed; asked of the exporter itself."
    RELAY_CLASHES Gauge "pm2_relay_clashes" ["target", "reason"]
        "Families of the application's own page that could not stand as they were, by reason; asked of the exporter itself."
    RELAY_ERRORS Counter "pm2_relay_errors_total" ["target", "reason"]
        "Times that the application's own page could not be read, by reason; asked of the exporter itself."
    RELAY_DURATION Gauge "pm2_relay_duration_seconds" ["target"]
        "How long it took to read the application's own page; asked of the exporter itself."

    EXPORTER_BUILD Info "pm2_exporter_build_info" ["version"]
        "The exporter."
    EXPORTER_RELOAD Gauge "pm2_exporter_config_last_reload_successful" []
        "Whether the last reload of the configuration was taken; asked of the exporter itself."
    EXPORTER_CERTIFICATE Gauge "pm2_exporter_certificate_expiry_timestamp_seconds" []
        "When the exporter's certificate ends being good; asked of the exporter itself."
    EXPORTER_TOKEN Gauge "pm2_exporter_token_expiry_timestamp_seconds" ["token"]
        "When a token of the exporter ends being good, where it was given an end."
    EXPORTER_READ Gauge "pm2_exporter_read_duration_seconds" []
        "How long it took to gather what this page tells; asked of the exporter itself."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let mut names: Vec<&str> = ALL.iter().map(|family| family.name).collect();
        for Family { name, kind, help, .. } in ALL {
            assert!(name.starts_with("pm2_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert_eq!(name.ends_with("_info"), *kind == Kind::Info, "{name}");
            assert!(help.ends_with('.'), "{name}: {help}");
            for wrong in ["milliseconds", "percent", "megabytes", "_mb", "_ms"] {
                assert!(!name.contains(wrong), "{name}");
            }
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
