//! Prometheus pages of applications, relayed on ours: read when ours is asked for, all at once, each
//! within its deadline, one question at a time; what fails is a metric and takes nothing from the rest.

mod fetch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use exposition::relay::{self, Clash, Page, Relayed, Told};
use exposition::{Labels, Writer, families};
use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};
use wire::{AppName, Process};

use crate::access::Who;
use crate::config::Relay as Settings;
use crate::pm2::Homes;

/// Why a page is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// No instance of the application runs: what else may listen there is not asked.
    NotRunning,
    /// Nobody listens, or the connection broke.
    Unreachable,
    /// It took too long.
    Timeout,
    /// It answered with another status than 200.
    Status,
    /// It is too large.
    TooLarge,
    /// It has too many series.
    TooManySeries,
    /// It is no page of metrics.
    Malformed,
}

impl Reason {
    const ALL: [Self; 7] = [
        Self::NotRunning,
        Self::Unreachable,
        Self::Timeout,
        Self::Status,
        Self::TooLarge,
        Self::TooManySeries,
        Self::Malformed,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::NotRunning => "not_running",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::TooLarge => "too_large",
            Self::TooManySeries => "too_many_series",
            Self::Malformed => "malformed",
        }
    }
}

type Answer = Result<Arc<Vec<Told>>, Reason>;

#[derive(Debug)]
struct Last {
    begun: Instant,
    answer: Answer,
}

#[derive(Debug, Default)]
struct Spoken {
    errors: BTreeMap<Reason, u64>,
    /// What was logged last, so that it is logged when it changes.
    logged: Option<String>,
}

#[derive(Debug)]
struct Source {
    settings: Settings,
    /// One question at a time; who waited for one that began later than they asked has its answer.
    last: tokio::sync::Mutex<Option<Last>>,
    told: Mutex<Spoken>,
}

/// See the module.
#[derive(Debug)]
pub struct Relays(Vec<Source>);

/// What one page is at this moment.
#[derive(Debug)]
pub struct Read<'a> {
    source: &'a Source,
    labels: Labels,
    answer: Answer,
    seconds: f64,
}

impl Relays {
    /// As configured.
    pub fn new(settings: &[Settings]) -> Self {
        let source = |settings: &Settings| Source {
            settings: settings.clone(),
            last: tokio::sync::Mutex::new(None),
            told: Mutex::default(),
        };
        Self(settings.iter().map(source).collect())
    }

    /// Asks all that `who` may see, at once. `labels` are those of every series.
    pub async fn read(&self, homes: &Homes, labels: &Labels, who: &Who) -> Vec<Read<'_>> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let processes = homes.processes(|_| Default::default());
        let sources = self.0.iter().filter(|source| who.reaches_app(&source.settings.app));
        join_all(sources.map(|source| source.read(&processes, labels))).await
    }
}

impl Source {
    async fn read(&self, processes: &[Process], labels: &Labels) -> Read<'_> {
        let asked = Instant::now();
        let instances = self.instances(processes);
        let answer = match instances.iter().any(|it| it.status.has_process()) {
            true => self.ask(asked).await,
            false => Err(Reason::NotRunning),
        };
        if let Err(reason) = answer {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            *told.errors.entry(reason).or_default() += 1;
        }
        let labels = labelled(labels, &self.settings.app, &instances);
        Read { source: self, labels, answer, seconds: asked.elapsed().as_secs_f64() }
    }

    /// The processes whose page it may be.
    fn instances<'a>(&self, processes: &'a [Process]) -> Vec<&'a Process> {
        let Settings { app, pm2_home, instance_id, .. } = &self.settings;
        processes
            .iter()
            .filter(|process| process.instance.name == *app)
            .filter(|process| {
                // Where one PM2 alone is watched, its processes say nothing of it.
                let of = process.instance.pm2_home.as_deref();
                pm2_home.is_none() || of.is_none() || of == pm2_home.as_deref()
            })
            .filter(|process| instance_id.is_none_or(|id| process.instance.instance_id == id))
            .collect()
    }

    async fn ask(&self, asked: Instant) -> Answer {
        let until = asked + self.settings.timeout;
        let Ok(mut last) = timeout_at(until, self.last.lock()).await else {
            return Err(Reason::Timeout);
        };
        if let Some(last) = last.as_ref().filter(|last| last.begun >= asked) {
            return last.answer.clone();
        }
        let begun = Instant::now();
        let answer = match timeout_at(until, fetch::page(&self.settings)).await {
            Ok(answer) => answer.map(Arc::new),
            Err(_) => Err(Reason::Timeout),
        };
        *last = Some(Last { begun, answer: answer.clone() });
        answer
    }

    /// Tells the log when something changed.
    fn log(&self, answer: &Answer, relayed: &Relayed) {
        let words = match answer {
            Err(reason) => Some(format!("is not relayed: {}", reason.as_str())),
            Ok(_) if relayed.clashes.is_empty() => None,
            Ok(_) => {
                let clash =
                    |(clash, name): &(Clash, String)| format!("{name} ({})", clash.as_str());
                let shown: Vec<String> = relayed.clashes.iter().take(5).map(clash).collect();
                Some(format!("{} families clash: {}", relayed.clashes.len(), shown.join(", ")))
            }
        };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.logged == words {
            return;
        }
        let (app, target) = (&self.settings.app, &self.settings.target);
        match &words {
            Some(words) => tracing::warn!(%app, %target, "the application's own page {words}"),
            None => tracing::info!(%app, %target, "the application's own page is relayed"),
        }
        told.logged = words;
    }
}

/// What all these processes have in common, as labels.
fn labelled(labels: &Labels, app: &AppName, instances: &[&Process]) -> Labels {
    let mut all = labels.with([("name", app.as_str())]);
    let Some((first, rest)) = instances.split_first() else { return all };
    let first = &first.instance;
    if rest.iter().all(|it| it.instance.namespace == first.namespace) {
        all.push("namespace", &first.namespace);
        if rest.is_empty() {
            all.push("instance_id", &first.instance_id.to_string());
        }
    }
    if let Some(home) = &first.pm2_home
        && rest.iter().all(|it| it.instance.pm2_home == first.pm2_home)
    {
        all.push("pm2_home", home);
    }
    all
}

/// Writes what was read, and how that went.
pub fn write(writer: &mut Writer, read: &[Read<'_>]) {
    if read.is_empty() {
        return;
    }
    let none: Vec<Told> = Vec::new();
    let pages: Vec<Page<'_>> = read
        .iter()
        .map(|one| Page {
            labels: &one.labels,
            families: one.answer.as_ref().map_or(&*none, |families| families.as_slice()),
        })
        .collect();
    let relayed = relay::write(writer, &pages);
    let rows: Vec<(Labels, &Read<'_>, &Relayed)> = read
        .iter()
        .zip(&relayed)
        .map(|(one, relayed)| {
            one.source.log(&one.answer, relayed);
            let target = one.source.settings.target.as_str();
            (one.labels.with([("target", target)]), one, relayed)
        })
        .collect();
    writer.family(&families::RELAY_UP, |samples| {
        for (labels, one, _) in &rows {
            samples.add(labels, f64::from(u8::from(one.answer.is_ok())));
        }
    });
    writer.family(&families::RELAY_SERIES, |samples| {
        for (labels, _, relayed) in &rows {
            samples.add(labels, relayed.series as f64);
        }
    });
    writer.family(&families::RELAY_CLASHES, |samples| {
        for (labels, _, relayed) in &rows {
            for clash in Clash::ALL {
                let count = relayed.clashes.iter().filter(|(its, _)| *its == clash).count();
                samples.add_with(labels, &[("reason", clash.as_str())], count as f64);
            }
        }
    });
    writer.family(&families::RELAY_ERRORS, |samples| {
        for (labels, one, _) in &rows {
            let told = one.source.told.lock().unwrap_or_else(PoisonError::into_inner);
            for reason in Reason::ALL {
                let count = told.errors.get(&reason).copied().unwrap_or_default();
                samples.add_with(labels, &[("reason", reason.as_str())], count as f64);
            }
        }
    });
    writer.family(&families::RELAY_DURATION, |samples| {
        for (labels, one, _) in &rows {
            samples.add(labels, one.seconds);
        }
    });
}
