//! What is known of every server now, in memory: read by the API, the pages and `/metrics`,
//! written by the poll tasks. A server that leaves the registry leaves here, and with it all
//! that was shown of it.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use dashboards::ServerStatus;
use tokio::time::Instant;
use wire::{Instance, ServerId, State, Time};

use crate::config::Target;
use crate::poll::Failure;
use crate::registry::{About, All};
use crate::store::Known;
use crate::trend::Trend;
use crate::world::now;

/// A server as it is known. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Member {
    /// What the registry says of it.
    pub target: Arc<Target>,
    /// What else the registry says.
    pub about: Arc<About>,
    /// What it said last, with the newest readings.
    pub state: Option<Arc<State>>,
    /// Cores used by each process, between its two newest samples.
    pub cpu: Arc<BTreeMap<Instance, f64>>,
    /// CPU of the machine as a fraction of all its cores, likewise.
    pub host_cpu: Option<f64>,
    /// That over the last hour, as far as this program saw it.
    pub trend: Trend,
    /// When it last answered.
    pub last_success: Option<Time>,
    /// The same by the clock that nobody sets.
    answered: Option<Instant>,
    /// Why the last poll failed, if it did.
    pub failure: Option<Failure>,
    /// Whether it was polled since this program started.
    polled: bool,
    /// How long the last poll took.
    pub duration: Option<Duration>,
    /// Entries of its journal that were gone before they were read, since this program started.
    pub lost: u64,
    /// By how many milliseconds its clock was ahead of the poller's when it last answered.
    pub clock_ahead: Option<i64>,
}

impl Member {
    fn new(target: Arc<Target>, about: Arc<About>, known: Known) -> Self {
        let age = known.last_success.map(|time| now().millis_since(time).max(0));
        Self {
            target,
            about,
            state: known.state,
            cpu: Arc::default(),
            host_cpu: None,
            trend: Trend::default(),
            last_success: known.last_success,
            answered: age.and_then(|age| {
                Instant::now().checked_sub(Duration::from_millis(age.unsigned_abs()))
            }),
            failure: None,
            polled: false,
            duration: None,
            lost: 0,
            clock_ahead: None,
        }
    }

    /// Whether it answered later than at `moment`.
    pub fn answered_after(&self, moment: Instant) -> bool {
        self.answered > Some(moment)
    }

    /// Whether it answers, given how long a silence makes it offline.
    pub fn status(&self, stale_after: Duration) -> ServerStatus {
        match self.answered {
            Some(answered) if answered.elapsed() < stale_after => {
                // What was known before a restart is not news.
                if self.polled && self.failure.is_none() {
                    ServerStatus::Online
                } else {
                    ServerStatus::Stale
                }
            }
            _ => ServerStatus::Offline,
        }
    }

    /// Whether it was polled since this program started.
    pub fn was_polled(&self) -> bool {
        self.polled
    }

    /// Why it is not online, in words.
    pub fn error(&self) -> Option<String> {
        self.failure.as_ref().map(|failure| failure.message.clone())
    }
}

/// What one answer brought.
#[derive(Clone, Debug, Default)]
pub struct News<'a> {
    /// A whole new state.
    pub state: Option<Arc<State>>,
    /// New rates.
    pub rates: Option<Rates<'a>>,
    /// CPU of the machine at each new sample.
    pub host_cpu: Vec<(Time, f64)>,
    /// Entries that it says are gone.
    pub lost: u64,
    /// Its clock when it answered.
    pub clock: Option<Time>,
}

/// Rates between the two newest samples.
#[derive(Clone, Debug)]
pub struct Rates<'a> {
    /// Cores used by each process, in the order of their names.
    pub cpu: Vec<(&'a Instance, f64)>,
    /// CPU of the machine as a fraction of all its cores.
    pub host_cpu: Option<f64>,
}

/// Every server of the registry.
#[derive(Debug, Default)]
pub struct Fleet {
    members: RwLock<BTreeMap<ServerId, Member>>,
    stale_after: RwLock<Duration>,
}

impl Fleet {
    /// How long a silence makes a server offline.
    pub fn stale_after(&self) -> Duration {
        *self.stale_after.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes that.
    pub fn set_stale_after(&self, stale_after: Duration) {
        *self.stale_after.write().unwrap_or_else(PoisonError::into_inner) = stale_after;
    }

    /// Takes a server in, with what is kept of it; one that is there only gets the new target.
    pub fn put(&self, target: Arc<Target>, about: Arc<About>, known: impl FnOnce() -> Known) {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        match members.get_mut(&target.id) {
            Some(member) => (member.target, member.about) = (target, about),
            None => {
                members.insert(target.id.clone(), Member::new(target, about, known()));
            }
        }
    }

    /// What else the registry says of those that are there, which polling need not know.
    pub fn describe(&self, all: &All) {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        for (id, it) in all {
            if let Some(member) = members.get_mut(id).filter(|old| old.about != it.about) {
                member.about = Arc::clone(&it.about);
            }
        }
    }

    /// Lets a server go.
    pub fn remove(&self, id: &ServerId) {
        self.members.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// A server.
    pub fn get(&self, id: &ServerId) -> Option<Member> {
        self.members.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Whether a server is there and answers.
    pub fn is_online(&self, id: &ServerId) -> bool {
        let stale_after = self.stale_after();
        self.get(id).is_some_and(|member| member.status(stale_after) == ServerStatus::Online)
    }

    /// Every server, by id.
    pub fn all(&self) -> Vec<Member> {
        self.members.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Ids of the servers of which `wanted` says so.
    pub fn ids_where(&self, wanted: impl Fn(&Target) -> bool) -> Vec<ServerId> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let found = members.iter().filter(|(_, member)| wanted(&member.target));
        found.map(|(id, _)| id.clone()).collect()
    }

    fn update(&self, id: &ServerId, change: impl FnOnce(&mut Member)) {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(member) = members.get_mut(id) {
            change(member);
        }
    }

    /// The server answered. Where it sent no new state, `freshen` brings the readings of the one
    /// that is known up to date, in place unless somebody is looking at it.
    pub fn answered(
        &self,
        id: &ServerId,
        now: Time,
        news: News<'_>,
        freshen: impl FnOnce(&mut Arc<State>),
    ) {
        self.update(id, |member| {
            member.last_success = Some(now);
            member.answered = Some(Instant::now());
            member.failure = None;
            member.polled = true;
            member.lost = member.lost.saturating_add(news.lost);
            member.clock_ahead = news.clock.map(|clock| clock.millis_since(now));
            match (news.state, &mut member.state) {
                (Some(state), known) => *known = Some(state),
                (None, Some(known)) => freshen(known),
                (None, None) => {}
            }
            for (time, cpu) in news.host_cpu {
                member.trend.add(time, cpu);
            }
            if let Some(rates) = news.rates {
                renew(&mut member.cpu, &rates.cpu);
                member.host_cpu = rates.host_cpu;
            }
        });
    }

    /// Readings of the machine's CPU from before this program started.
    pub fn remember(&self, id: &ServerId, cpu: &[(Time, f64)]) {
        self.update(id, |member| {
            for (time, cpu) in cpu {
                member.trend.add(*time, *cpu);
            }
        });
    }

    /// A poll of the server ended.
    pub fn polled(&self, id: &ServerId, duration: Duration, failure: Option<Failure>) {
        self.update(id, |member| {
            member.polled = true;
            member.duration = Some(duration);
            member.failure = failure;
        });
    }
}

/// Takes over rates, of the same processes in place unless somebody is looking at them.
fn renew(known: &mut Arc<BTreeMap<Instance, f64>>, new: &[(&Instance, f64)]) {
    if known.len() == new.len() && known.keys().eq(new.iter().map(|(instance, _)| *instance)) {
        for (known, (_, new)) in Arc::make_mut(known).values_mut().zip(new) {
            *known = *new;
        }
    } else {
        *known =
            Arc::new(new.iter().map(|(instance, rate)| ((*instance).clone(), *rate)).collect());
    }
}
