//! Every alert: the one list that `grafana/prometheus/alerts.yml` and the poller's `[[notify]]`
//! share. A test compares it with that file, so that neither drifts from the other.

use std::time::Duration;

use wire::Severity;

/// An alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Its name, which is also that of its runbook.
    pub name: &'static str,
    /// `warning`, or `critical`.
    pub severity: Severity,
    /// How long its condition holds before it is told.
    pub hold: Duration,
    /// One line; `{label}` stands for the label's value, `{a|b}` for the first that there is.
    pub summary: &'static str,
}

impl Alert {
    /// The summary with its labels' values.
    pub fn summary_of<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> String {
        let mut parts = self.summary.split(['{', '}']);
        let mut summary = parts.next().unwrap_or_default().to_owned();
        while let (Some(names), Some(text)) = (parts.next(), parts.next()) {
            summary.push_str(names.split('|').find_map(&label).unwrap_or_default());
            summary.push_str(text);
        }
        summary
    }
}

macro_rules! alerts {
    ($($id:ident $name:ident $severity:ident $minutes:literal $summary:literal)*) => {
        $(#[doc = $summary] pub const $id: Alert = Alert {
            name: stringify!($name),
            severity: Severity::$severity,
            hold: Duration::from_secs($minutes * 60),
            summary: $summary,
        };)*

        /// All of them, in the order of the file.
        pub const ALL: &[Alert] = &[$($id),*];
    };
}

alerts! {
    SERVER_DOWN Pm2ServerDown Critical 2 "{server} does not answer"
    DAEMON_DOWN Pm2DaemonDown Critical 2 "PM2 on {server} does not answer"
    CERTIFICATE Pm2CertificateExpiring Warning 0 "The certificate of {server|instance} expires"
    TOKEN Pm2TokenExpiring Warning 0 "Token {token} of {server|instance} expires"
    CLOCK Pm2ServerClockOff Warning 10 "The clock of {server} is off"
    DUMP_DRIFT Pm2DumpDrift Warning 30 "PM2's dump on {server} is not what runs"
    LOG_DISK Pm2LogDiskFilling Warning 30
        "The disk with PM2's directory on {server} is filling"
    ERRORED Pm2ProcessErrored Critical 1 "{name} on {server} is errored: PM2 gave up on it"
    CRASH_LOOP Pm2CrashLoop Critical 1 "{name} on {server} crashes again and again"
    RESTART_STORM Pm2RestartStorm Warning 2 "Processes on {server} restart all the time"
    MEMORY_GROWTH Pm2MemoryGrowth Warning 30
        "{name} on {server} grows beyond the host's memory within 4 hours"
    EVENT_LOOP Pm2EventLoopSlow Warning 5 "The event loop of {name} on {server} is slow"
    SLOT_NOT_SERVING Pm2SlotNotServing Critical 2 "Slot {slot} on {server} does not serve"
    SLOT_PORT_TAKEN Pm2SlotPortTaken Critical 1
        "A stranger holds the port of slot {slot} on {server}"
    DEPLOY_FAILED Pm2SlotDeployFailed Warning 0 "A deployment to slot {slot} on {server} failed"
    POLLER_DOWN Pm2PollerDown Critical 2 "The poller is not scraped"
    POLLER_BEHIND Pm2PollerBehind Warning 10 "The poller at {instance} is behind"
    HISTORY_FAILING Pm2PollerHistoryFailing Critical 5
        "The poller at {instance} cannot write its history"
    JOURNAL_LOST Pm2JournalEntriesLost Warning 0
        "Entries of the journal of {server} are gone for good"
    SERVER_FILE Pm2PollerServerFileUnread Warning 5
        "The poller at {instance} cannot use the list of servers {file}"
    SERVER_CONFLICT Pm2PollerServerConflict Warning 10
        "Servers of the poller at {instance} are written down more than once"
    CONFIG_REFUSED Pm2PollerConfigRefused Warning 5
        "The poller at {instance} does not take its changed configuration"
    NOTIFY_FAILING Pm2PollerNotifyFailing Critical 10
        "{receiver} takes no alerts from the poller at {instance}"
}

/// The alert of that name.
pub fn named(name: &str) -> Option<&'static Alert> {
    ALL.iter().find(|alert| alert.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_takes_the_values_of_labels() {
        let labels = [("server", "vm1"), ("token", "{odd}")];
        let label = |name: &str| labels.iter().find(|(key, _)| *key == name).map(|(_, it)| *it);
        assert_eq!(TOKEN.summary_of(label), "Token {odd} of vm1 expires");
        assert_eq!(POLLER_DOWN.summary_of(label), "The poller is not scraped");
        assert_eq!(POLLER_BEHIND.summary_of(label), "The poller at  is behind");
        assert_eq!(named("Pm2TokenExpiring"), Some(&TOKEN));
    }
}
