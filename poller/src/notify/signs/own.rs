use std::collections::BTreeMap;

use exposition::alerts as a;
use wire::Time;

use super::rise::Rise;
use super::{certificate, key, token, window};
use crate::notify::alert::{Finding, Key};

/// The poller as it sees itself.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// The time of day.
    pub day: Time,
    /// What it is called in alerts: `host:10210`.
    pub instance: String,
    /// Polls begun.
    pub polls: u64,
    /// Those of them that began more than a second late.
    pub late: u64,
    /// Failures of the database by kind.
    pub store_errors: Vec<(&'static str, u64)>,
    /// When its certificate ends being good.
    pub certificate: Option<Time>,
    /// When its tokens do, by name.
    pub tokens: Vec<(String, Time)>,
    /// Files that list servers, and whether each could be used when it was looked at last.
    pub server_files: Vec<(String, bool)>,
    /// Servers that are written down in more than one place.
    pub conflicts: u64,
    /// The configuration file was asked for again and had mistakes.
    pub config_refused: bool,
    /// Receivers of alerts: messages that failed, and that arrived.
    pub receivers: BTreeMap<String, (u64, u64)>,
}

#[derive(Debug)]
pub(super) struct OwnMemory {
    since: Time,
    polls: Rise,
    late: Rise,
    store_errors: Vec<(&'static str, Rise)>,
    receivers: BTreeMap<String, (Rise, Rise)>,
}

impl OwnMemory {
    pub(super) fn new(now: Time, own: &Own) -> Self {
        let behind = window(a::POLLER_BEHIND.name);
        let failing = window(a::HISTORY_FAILING.name);
        let errors = own.store_errors.iter();
        Self {
            since: now,
            polls: Rise::new(behind, now, own.polls),
            late: Rise::new(behind, now, own.late),
            store_errors: errors.map(|(kind, n)| (*kind, Rise::new(failing, now, *n))).collect(),
            receivers: BTreeMap::new(),
        }
    }

    pub(super) fn look(&mut self, now: Time, own: &Own, findings: &mut Vec<Finding>) {
        let instance = own.instance.as_str();
        let mut tell = |alert, labels: &[(&str, &str)], description| {
            let labels = std::iter::once(("instance", instance)).chain(labels.iter().copied());
            let key = key(alert, labels);
            findings.push(Finding { key, description, group: String::new(), tags: Vec::new() });
        };
        self.polls.note(now, own.polls);
        self.late.note(now, own.late);
        let (polls, late) = (self.polls.by(), self.late.by());
        if late * 100 > polls {
            let said = format!(
                "{late} of {polls} polls within 10 minutes began more than a second late at \
                 {instance}. The fleet is more than the poller's CPU or disk can keep up with."
            );
            tell(&a::POLLER_BEHIND, &[], said);
        }
        for ((kind, rise), (_, count)) in self.store_errors.iter_mut().zip(&own.store_errors) {
            rise.note(now, *count);
            if rise.by() > 0 {
                let said = format!(
                    "{} writes or reads of the database failed ({kind}) at {instance} within 5 \
                     minutes. The exporters' journals hold what is missing, for a while.",
                    rise.by()
                );
                tell(&a::HISTORY_FAILING, &[("kind", kind)], said);
            }
        }
        for (file, _) in own.server_files.iter().filter(|(_, used)| !used) {
            let said = format!(
                "{file}, one of the server_files of the poller at {instance}, is missing, unreadable \
                 or wrong. What it said last is still used, unless the poller was started since: then its \
                 servers are not watched. Nor are those that were added to it."
            );
            tell(&a::SERVER_FILE, &[("file", file)], said);
        }
        if own.conflicts > 0 {
            let said = format!(
                "Servers that the poller at {instance} has from more than one place: {}. The \
                 configuration wins over files, and files over the database; what the others say of \
                 them has no effect.",
                own.conflicts
            );
            tell(&a::SERVER_CONFLICT, &[], said);
        }
        if own.config_refused {
            let said = format!(
                "The configuration file of the poller at {instance} has a mistake. The poller goes on \
                 with the configuration from before, and would not start again with this one."
            );
            tell(&a::CONFIG_REFUSED, &[], said);
        }
        self.receivers.retain(|name, _| own.receivers.contains_key(name));
        for (name, (failed, arrived)) in &own.receivers {
            let rises = || {
                let rise = |count| Rise::new(window(a::NOTIFY_FAILING.name), now, count);
                (rise(*failed), rise(*arrived))
            };
            let (fails, arrives) = self.receivers.entry(name.clone()).or_insert_with(rises);
            fails.note(now, *failed);
            arrives.note(now, *arrived);
            if fails.by() > 0 && arrives.by() == 0 {
                let said = format!(
                    "{} messages of the poller at {instance} to the receiver {name} failed within 10 \
                     minutes, and none arrived. Whoever relies on it hears of nothing.",
                    fails.by()
                );
                tell(&a::NOTIFY_FAILING, &[("receiver", name)], said);
            }
        }
        if let Some(said) = own.certificate.and_then(|end| certificate(own.day, instance, end)) {
            tell(&a::CERTIFICATE, &[], said);
        }
        for (name, end) in &own.tokens {
            if let Some(said) = token(own.day, instance, name, *end) {
                tell(&a::TOKEN, &[("token", name)], said);
            }
        }
    }

    /// Whether this life is too short to say that it is over.
    pub(super) fn is_young(&self, now: Time, key: &Key) -> bool {
        now.millis_since(self.since) < window(&key.alert)
    }
}
