//! What holds now, as far as it is known: every condition with what is said of it and since when.

use std::collections::BTreeMap;
use std::sync::Arc;

use dashboards::page_of;
use exposition::{Alert, alerts};
use serde::{Deserialize, Serialize};
use wire::{AppName, ServerId, Severity, Time};

/// Most conditions that are followed at once; a fleet with more has another problem.
const MAX_ACTIVE: usize = 10_000;

/// Which condition of what. Prometheus gives the same alert the same labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Name of the alert.
    pub alert: String,
    /// `server`, `name`, `slot`, …
    pub labels: BTreeMap<String, String>,
}

impl Key {
    /// The alert that it is one of; none when a later version named it.
    pub fn of(&self) -> Option<&'static Alert> {
        alerts::named(&self.alert)
    }

    /// The label of that name.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str)
    }

    /// The server that it is about, if it is about one.
    pub fn server(&self) -> Option<ServerId> {
        self.label("server")?.parse().ok()
    }

    /// The app that it is about, if it is about one.
    pub fn app(&self) -> Option<AppName> {
        self.label("name")?.parse().ok()
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.of().map_or(Severity::Warning, |alert| alert.severity)
    }

    /// One line.
    pub fn summary(&self) -> String {
        self.of().map_or_else(
            || self.alert.clone(),
            |alert| alert.summary_of(|name: &str| self.label(name)),
        )
    }

    /// The path of the page that shows more of it.
    pub fn page(&self) -> String {
        page_of(self.server().as_ref(), self.app().as_ref(), self.label("slot"))
    }
}

/// A condition that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Active {
    /// Since when, without a break that was seen.
    pub since: Time,
    /// What is said of it, with values.
    pub description: String,
    /// Group of its server.
    pub group: String,
    /// Tags of its server.
    pub tags: Vec<String>,
    /// Whether it was found in this life of the program, and not only remembered.
    #[serde(skip)]
    pub found: bool,
}

impl Active {
    /// Whether it has held for as long as its alert wants.
    pub fn is_firing(&self, key: &Key, now: Time) -> bool {
        let hold = key
            .of()
            .map_or(i64::MAX, |alert| i64::try_from(alert.hold.as_millis()).unwrap_or(i64::MAX));
        now.millis_since(self.since) >= hold
    }
}

/// A condition that was found to hold at one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub key: Key,
    /// What is said of it.
    pub description: String,
    /// Group of its server.
    pub group: String,
    /// Tags of its server.
    pub tags: Vec<String>,
}

/// Every condition that holds, as far as is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Shared with those who were told of it.
    active: Arc<BTreeMap<Key, Active>>,
}

impl Ledger {
    /// What was known in an earlier life of the program.
    pub fn restored(active: Vec<(Key, Active)>, now: Time) -> Self {
        let known = active.into_iter().filter(|(key, _)| key.of().is_some());
        let active = known.map(|(key, mut active)| {
            // The clock may have been set back meanwhile.
            active.since = active.since.min(now);
            (key, active)
        });
        Self { active: Arc::new(active.collect()) }
    }

    /// Takes what one look found. What was not found is over, unless `unknown` says that the
    /// look could not tell: then it stays as it was. Gives whether something began or ended.
    pub fn look(
        &mut self,
        now: Time,
        findings: Vec<Finding>,
        unknown: impl Fn(&Key, &Active) -> bool,
    ) -> bool {
        let mut before = Arc::unwrap_or_clone(std::mem::take(&mut self.active));
        let (mut active, mut changed) = (BTreeMap::new(), false);
        for Finding { key, description, group, tags } in findings {
            let known = before.remove(&key);
            if known.is_none() && active.len() + before.len() >= MAX_ACTIVE {
                continue;
            }
            changed |= known.is_none();
            let since = known.map_or(now, |known| known.since);
            active.insert(key, Active { since, description, group, tags, found: true });
        }
        for (key, known) in before {
            if unknown(&key, &known) {
                active.insert(key, known);
            } else {
                changed = true;
            }
        }
        self.active = Arc::new(active);
        changed
    }

    /// All of them.
    pub fn active(&self) -> &Arc<BTreeMap<Key, Active>> {
        &self.active
    }
}
