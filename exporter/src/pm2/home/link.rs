//! Whether the daemon is there and answers: what is heard of it, and what is told when that changes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wire::{EventKind, Severity, Time};

use super::{CONFIRM_WITHIN, Home};
use crate::pm2::rpc::Rpc;

/// What is known of the connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) rpc: Option<Arc<Rpc>>,
    pub(super) up: bool,
    pub(super) error: Option<String>,
    /// It is there, and does not answer.
    pub(super) silent: bool,
    pub(super) version: Option<String>,
    /// When the daemon last said anything.
    pub(super) heard_at: Option<Instant>,
    pub(super) listed_at: Option<Instant>,
    /// When what applications report was last read, over whatever connection.
    pub(super) reported_at: Option<Instant>,
    /// How old that may be.
    pub(super) max_age: Option<Duration>,
    pub(super) confirmed_at: Option<Time>,
    /// Routine lists that had what nothing had told.
    pub(super) drifts: u64,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            rpc: None,
            up: false,
            error: Some("not asked yet".to_owned()),
            silent: false,
            version: None,
            heard_at: None,
            listed_at: None,
            reported_at: None,
            max_age: None,
            confirmed_at: None,
            drifts: 0,
        }
    }
}

impl Link {
    /// Why it is not up. It says since when and not for how long: whoever keeps it would show a
    /// span that does not grow.
    pub(super) fn error_now(&self) -> Option<String> {
        if !self.silent {
            return self.error.clone();
        }
        let since = match self.confirmed_at {
            Some(time) => format!("has not answered since {time}"),
            None => "has never answered".to_owned(),
        };
        Some(format!("the PM2 daemon accepts connections and {since}"))
    }

    /// Whether what applications reported is older than it may be: an ordinary look takes a
    /// moment, and one that finds nobody does not make it younger.
    pub(super) fn reports_are_old(&self) -> bool {
        let ages = self.max_age.zip(self.reported_at);
        !self.up && ages.is_some_and(|(most, at)| at.elapsed() > most + CONFIRM_WITHIN)
    }
}

impl Home {
    /// The daemon said something.
    pub(in crate::pm2) fn spoke(&self) {
        let mut link = self.link();
        link.heard_at = Some(Instant::now());
        link.confirmed_at = Some(Time::now());
        if !link.up && link.rpc.is_some() && link.listed_at.is_some() {
            link.up = true;
            (link.error, link.silent) = (None, false);
            drop(link);
            self.tell(EventKind::PM2_CONNECTED, Severity::Info, "the PM2 daemon answers again");
        }
    }

    /// A question was answered.
    pub(in crate::pm2) fn answered(&self) {
        self.asked.send_modify(|count| *count += 1);
    }

    /// Waits until a question is given up.
    pub(in crate::pm2) async fn gave_up(&self) {
        self.gave_up.notified().await;
    }

    /// It is there, and does not answer. What it said before stays known.
    pub(in crate::pm2) fn silent(&self) {
        let mut link = self.link();
        let changed = !std::mem::replace(&mut link.silent, true);
        if std::mem::replace(&mut link.up, false) {
            drop(link);
            self.tell(
                EventKind::PM2_DISCONNECTED,
                Severity::Critical,
                "the PM2 daemon does not answer",
            );
        } else if changed {
            self.revision.bump();
        }
    }

    /// The connection is there and the first list was taken.
    pub(in crate::pm2) fn connected(&self, rpc: Arc<Rpc>) {
        let mut link = self.link();
        link.rpc = Some(rpc);
        link.listed_at = None;
    }

    /// A list was read.
    pub(in crate::pm2) fn listed(&self, version: Option<String>) {
        let mut link = self.link();
        link.listed_at = Some(Instant::now());
        link.reported_at = link.listed_at;
        link.confirmed_at = Some(Time::now());
        link.heard_at = Some(Instant::now());
        if version.is_some() {
            link.version = version;
        }
        if !link.up {
            link.up = true;
            (link.error, link.silent) = (None, false);
            let message = match &link.version {
                Some(version) => format!("connected to PM2 {version}"),
                None => "connected to PM2".to_owned(),
            };
            drop(link);
            self.tell(EventKind::PM2_CONNECTED, Severity::Info, &message);
        }
    }

    /// The connection was given up; the daemon is still there.
    pub(in crate::pm2) fn disconnected(&self) {
        let mut link = self.link();
        link.rpc = None;
        link.listed_at = None;
    }

    /// The daemon is gone.
    pub(in crate::pm2) fn lost(&self, reason: String) {
        let was_up = {
            let mut link = self.link();
            link.rpc = None;
            link.listed_at = None;
            let changed = link.error.as_deref() != Some(&reason);
            link.error = Some(reason.clone());
            link.silent = false;
            let was_up = std::mem::replace(&mut link.up, false);
            if changed || was_up {
                self.revision.bump();
            }
            was_up
        };
        self.table(|table| table.clear(Time::now()));
        self.answered();
        if was_up {
            let message = format!("lost the PM2 daemon: {reason}");
            self.tell(EventKind::PM2_DISCONNECTED, Severity::Critical, &message);
        }
    }
}
