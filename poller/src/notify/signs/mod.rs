//! Which alerts' conditions hold, judged by what is known of the fleet: the same conditions as in
//! `grafana/prometheus/alerts.yml`. Pure: what was seen goes in with its time, findings come out.
//! What needs a look back is remembered here, in a few numbers a process.

mod own;
mod rise;
mod server;
mod trend;

use std::collections::{BTreeMap, BTreeSet};

use exposition::{Alert, alerts as a};
use wire::{Instance, ServerId, State, Time};

use super::alert::{Active, Finding, Key};
use own::OwnMemory;
use server::ServerMemory;

pub use own::Own;

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Certificates and tokens are told so long before their end.
const CERTIFICATE_LEFT: i64 = 14 * DAY;
const TOKEN_LEFT: i64 = 7 * DAY;

/// A server as it is seen at one look.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The time of day: what is judged by a clock that nobody sets is how long something lasts, and not
    /// when something ends.
    pub day: Time,
    /// Its id.
    pub id: &'a ServerId,
    /// Its group.
    pub group: &'a str,
    /// Its tags.
    pub tags: &'a [String],
    /// What it said last.
    pub state: Option<&'a State>,
    /// When it last answered.
    pub last_success: Option<Time>,
    /// Whether it was polled since this program started.
    pub polled: bool,
    /// Whether its last poll went well.
    pub answers: bool,
    /// Why not.
    pub failure: Option<&'a str>,
    /// Entries of its journal that were lost, since this program started.
    pub lost: u64,
    /// By how many milliseconds its clock is ahead.
    pub clock_ahead: Option<i64>,
    /// When the certificate that it showed last ends being good.
    pub certificate: Option<Time>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Signs {
    servers: BTreeMap<ServerId, ServerMemory>,
    past: BTreeMap<ServerId, BTreeMap<Instance, Vec<Time>>>,
    own: Option<OwnMemory>,
}

impl Signs {
    /// Since when crashes of before the first look matter.
    pub fn matter_since(now: Time) -> Time {
        now.plus_millis(-window(a::CRASH_LOOP.name))
    }

    /// Takes down the crashes of before the first look, the oldest first: what a former life of the
    /// program saw of a loop.
    pub fn remember(&mut self, crashes: Vec<(ServerId, Instance, Time)>) {
        for (server, instance, time) in crashes {
            self.past.entry(server).or_default().entry(instance).or_default().push(time);
        }
    }

    /// Looks at some servers. A look is one at every server, at the poller itself, and then
    /// [`Self::forget`].
    pub fn look(&mut self, now: Time, servers: &[Seen<'_>], findings: &mut Vec<Finding>) {
        for seen in servers {
            let past = &mut self.past;
            let new = || ServerMemory::new(now, past.remove(seen.id).unwrap_or_default());
            let memory = self.servers.entry(seen.id.clone()).or_insert_with(new);
            memory.look(now, seen, findings);
        }
    }

    /// Looks at the poller itself.
    pub fn look_at_own(&mut self, now: Time, own: &Own, findings: &mut Vec<Finding>) {
        self.own.get_or_insert_with(|| OwnMemory::new(now, own)).look(now, own, findings);
    }

    /// Forgets all servers but these.
    pub fn forget<'a>(&mut self, but: impl Iterator<Item = &'a ServerId>) {
        let ids: BTreeSet<&ServerId> = but.collect();
        self.servers.retain(|id, _| ids.contains(id));
        self.past.retain(|id, _| ids.contains(id));
    }

    /// Whether the last look could not tell that this condition is over: a server does not
    /// answer, or has not been watched for as long as it takes.
    pub fn is_unknown(&self, now: Time, key: &Key, active: &Active) -> bool {
        let Some(id) = key.server() else {
            return !active.found && self.own.as_ref().is_none_or(|own| own.is_young(now, key));
        };
        // A server that is not there any more has nothing that could be wrong.
        let Some(memory) = self.servers.get(&id) else { return false };
        memory.is_blind(key) || (!active.found && memory.is_young(now, key))
    }
}

/// A finding about a server.
fn finding(
    alert: &Alert,
    seen: &Seen<'_>,
    labels: &[(&str, &str)],
    description: String,
) -> Finding {
    let server = ("server", seen.id.as_str());
    Finding {
        key: key(alert, std::iter::once(server).chain(labels.iter().copied())),
        description,
        group: seen.group.to_owned(),
        tags: seen.tags.to_vec(),
    }
}

fn key<'a>(alert: &Alert, labels: impl Iterator<Item = (&'a str, &'a str)>) -> Key {
    Key {
        alert: alert.name.to_owned(),
        labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }
}

/// `3 days`, `5 h`, `20 min`, `40 s`: as long as it is, roughly.
fn span(millis: i64) -> String {
    match millis {
        ..MINUTE => format!("{} s", millis / SECOND),
        MINUTE..HOUR => format!("{} min", millis / MINUTE),
        HOUR..DAY => format!("{} h", millis / HOUR),
        _ => format!("{} days", millis / DAY),
    }
}

/// Whether a certificate is about to end, and what is said of it.
fn certificate(now: Time, whose: &str, end: Time) -> Option<String> {
    let left = end.millis_since(now);
    (left < CERTIFICATE_LEFT).then(|| match left > 0 {
        true => format!(
            "In {} the certificate of {whose} ends being good, and with it every connection to it.",
            span(left)
        ),
        false => format!(
            "The certificate of {whose} is good no more, and with that every connection to it fails."
        ),
    })
}

/// Whether a token is about to end, and what is said of it.
fn token(now: Time, whose: &str, name: &str, end: Time) -> Option<String> {
    let left = end.millis_since(now);
    (left < TOKEN_LEFT).then(|| match left > 0 {
        true => format!(
            "In {} the token {name} of {whose} ends being good. Whoever uses it is refused from \
             then on.",
            span(left)
        ),
        false => {
            format!("The token {name} of {whose} is good no more. Whoever uses it is refused.")
        }
    })
}

/// How long a condition has to be watched before it can be said to be over.
fn window(alert: &str) -> i64 {
    match alert {
        name if name == a::CRASH_LOOP.name || name == a::RESTART_STORM.name => 10 * MINUTE,
        name if name == a::DEPLOY_FAILED.name => 15 * MINUTE,
        name if name == a::JOURNAL_LOST.name => 30 * MINUTE,
        name if name == a::MEMORY_GROWTH.name => 2 * HOUR,
        name if name == a::LOG_DISK.name => 3 * HOUR,
        name if name == a::POLLER_BEHIND.name || name == a::NOTIFY_FAILING.name => 10 * MINUTE,
        name if name == a::HISTORY_FAILING.name => 5 * MINUTE,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
