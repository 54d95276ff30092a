use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use wire::{ServerId, Time};

use super::alert::{Active, Key};

/// When it was looked last, by how many milliseconds the time of day is ahead of that, and what held.
type Shown = Option<(Time, i64, Arc<BTreeMap<Key, Active>>)>;

/// What holds now, for the API and the pages.
#[derive(Debug, Default)]
pub struct Board(RwLock<Shown>);

/// What holds, of what somebody may see.
#[derive(Clone, Debug, Default)]
pub struct Holding {
    /// When it was looked last; `None` before the first look.
    pub as_of: Option<Time>,
    /// What holds: what is told first, then the worst, then the newest.
    pub alerts: Vec<Held>,
}

/// A condition that holds.
#[derive(Clone, Debug)]
pub struct Held {
    /// Which.
    pub key: Key,
    /// Its server, where it is about one.
    pub server: Option<ServerId>,
    /// Since when, and what is said of it.
    pub active: Active,
    /// It has held for as long as its alert wants, and is told.
    pub firing: bool,
}

impl Board {
    pub(super) fn show(&self, now: Time, behind: i64, active: Arc<BTreeMap<Key, Active>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some((now, behind, active));
    }

    /// What holds, of servers that `may_see`, and of the poller itself where that is `None`.
    pub fn holding(&self, may_see: impl Fn(Option<&ServerId>) -> bool) -> Holding {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((as_of, behind, active)) = shown else { return Holding::default() };
        let mut alerts: Vec<Held> = active
            .iter()
            .filter_map(|(key, active)| {
                let server = key.server();
                may_see(server.as_ref()).then(|| Held {
                    key: key.clone(),
                    server,
                    active: Active { since: active.since.plus_millis(behind), ..active.clone() },
                    firing: active.is_firing(key, as_of),
                })
            })
            .collect();
        alerts.sort_by_key(|held| {
            let (severity, since) = (held.key.severity(), held.active.since);
            std::cmp::Reverse((held.firing, severity, since))
        });
        Holding { as_of: Some(as_of.plus_millis(behind)), alerts }
    }
}
