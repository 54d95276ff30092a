//! Alerts without Prometheus: conditions judged from the fleet (`signs`), followed (`alert`),
//! shown to who asks (`board`), and told to receivers (`book` decides what, `body` how, `send`
//! does). All but the last are pure; this file lets them run.

pub mod alert;
mod board;
pub mod body;
pub mod book;
mod clock;
pub mod receiver;
mod send;
pub mod signs;
mod status;
mod template;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::Time;

pub use board::{Board, Held, Holding};
pub use send::{Delivery, Undelivered, send};
pub use status::{ReceiverStatus, Status};

use crate::app::App;
use crate::config::Config;
use crate::fleet::Member;
use alert::{Active, Key, Ledger};
use book::{Book, Message};
use clock::Clock;
use dashboards::ServerStatus;
use receiver::Receiver;
use signs::{Own, Seen, Signs};

/// What is known changes with the polls; it is looked at as often, but not more than so often.
const LOOK: Duration = Duration::from_secs(1);
/// With nobody to tell at once, it is looked at as often as polls come, and at least so often.
const LOOK_ALONE: Duration = Duration::from_secs(10);
/// One part in so many of the time is spent on looking, at most.
const SHARE: u32 = 50;
/// Servers that are looked at in one go: others' work is let in between.
const AT_ONCE: usize = 100;
/// How long a stop waits for what is on its way.
const LAST: Duration = Duration::from_secs(2);
/// Part of the memory that holds the ledger; receivers have a part each.
const LEDGER: &str = "alerts";
const BOOK: &str = "receiver:";

/// A receiver, with what it was told.
#[derive(Debug)]
struct Desk {
    receiver: Arc<Receiver>,
    book: Book,
    /// A message is on its way.
    busy: bool,
}

/// How a message ended.
type Sent = (String, Message, Result<Duration, Undelivered>);

struct Notifier<'a> {
    app: &'a App,
    clock: Clock,
    /// From poll to poll.
    interval: Duration,
    instance: String,
    signs: Signs,
    ledger: Ledger,
    desks: BTreeMap<String, Desk>,
    sends: JoinSet<Sent>,
    /// Parts of the memory that are not on the disk as they are here.
    unsaved: BTreeSet<String>,
}

/// Watches and tells, until `stop`.
///
/// # Errors
/// A task died.
pub async fn run(
    app: &App,
    mut configs: watch::Receiver<Config>,
    stop: CancellationToken,
) -> Result<(), String> {
    let config = configs.borrow_and_update().clone();
    let mut notifier = Notifier {
        app,
        clock: Clock::new(),
        interval: config.timing.interval,
        instance: format!("{}:{}", host_name(), config.listen.port()),
        signs: Signs::default(),
        ledger: Ledger::default(),
        desks: BTreeMap::new(),
        sends: JoinSet::new(),
        unsaved: BTreeSet::new(),
    };
    notifier.remember(&config).await;
    let mut next = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            changed = configs.changed() => {
                if changed.is_err() {
                    break;
                }
                let config = configs.borrow_and_update().clone();
                notifier.reconfigure(&config);
            }
            Some(sent) = notifier.sends.join_next() => {
                notifier.sent(sent.map_err(|error| error.to_string())?);
            }
            () = tokio::time::sleep_until(next) => {
                let begun = Instant::now();
                notifier.look().await;
                next = begun + notifier.pause().max(begun.elapsed() * SHARE);
            }
        }
        notifier.save().await;
    }
    let last = async {
        while let Some(sent) = notifier.sends.join_next().await {
            let Ok(sent) = sent else { break };
            notifier.sent(sent);
        }
    };
    // What is cut off here may have arrived, and comes again after the next start.
    let _ = tokio::time::timeout(LAST, last).await;
    notifier.save().await;
    Ok(())
}

impl Notifier<'_> {
    /// Takes up where an earlier life of the program ended.
    async fn remember(&mut self, config: &Config) {
        let memory = match self.app.store.notify_memory().await {
            Ok(memory) => memory,
            Err(error) => {
                tracing::warn!(%error, "what receivers were told cannot be read: they may hear it again");
                BTreeMap::new()
            }
        };
        let now = self.clock.now();
        if let Some(text) = memory.get(LEDGER) {
            match serde_json::from_str::<Vec<(Key, Active)>>(text) {
                Ok(active) => self.ledger = Ledger::restored(active, now),
                Err(error) => tracing::warn!(%error, "the alerts that held cannot be read"),
            }
        }
        match self.app.store.crashed(Signs::matter_since(now)).await {
            Ok(crashes) => self.signs.remember(crashes),
            Err(error) => tracing::warn!(%error, "crashes of before cannot be read"),
        }
        self.reconfigure(config);
        for (name, desk) in &mut self.desks {
            let Some(text) = memory.get(&format!("{BOOK}{name}")) else { continue };
            match Book::restored(text, now) {
                Ok(book) => desk.book = book,
                Err(error) => {
                    tracing::warn!(receiver = name, %error, "what it was told cannot be read");
                }
            }
        }
        let gone = memory.into_keys().filter(|part| {
            part.strip_prefix(BOOK).is_some_and(|name| !self.desks.contains_key(name))
        });
        self.unsaved.extend(gone);
    }

    /// Takes over the receivers of a configuration; those that stay keep their books.
    fn reconfigure(&mut self, config: &Config) {
        let mut before = std::mem::take(&mut self.desks);
        for receiver in &config.notify {
            let desk = match before.remove(&receiver.name) {
                Some(desk) => Desk { receiver: Arc::clone(receiver), ..desk },
                None => Desk { receiver: Arc::clone(receiver), book: Book::default(), busy: false },
            };
            self.desks.insert(receiver.name.clone(), desk);
        }
        self.unsaved.extend(before.into_keys().map(|name| format!("{BOOK}{name}")));
        self.app.notify.keep(self.desks.keys());
        self.interval = config.timing.interval;
    }

    /// From one look to the next.
    fn pause(&self) -> Duration {
        match self.desks.is_empty() {
            true => self.interval.clamp(LOOK, LOOK_ALONE),
            false => self.interval.min(LOOK),
        }
    }

    async fn look(&mut self) {
        self.clock.compare(Time::now());
        let (now, behind) = (self.clock.now(), self.clock.behind);
        let (members, own) = (self.app.fleet.all(), self.own(now.plus_millis(behind)));
        let stale_after = self.app.fleet.stale_after();
        let mut findings = Vec::new();
        for some in members.chunks(AT_ONCE) {
            let servers: Vec<Seen<'_>> =
                some.iter().map(|member| self.seen(member, stale_after, own.day)).collect();
            self.signs.look(now, &servers, &mut findings);
            tokio::task::yield_now().await;
        }
        self.signs.look_at_own(now, &own, &mut findings);
        self.signs.forget(members.iter().map(|member| &member.target.id));
        let signs = &self.signs;
        let unknown = |key: &Key, active: &Active| signs.is_unknown(now, key, active);
        if self.ledger.look(now, findings, unknown) {
            self.unsaved.insert(LEDGER.to_owned());
        }
        self.app.alerts.show(now, behind, Arc::clone(self.ledger.active()));
        for (name, desk) in self.desks.iter_mut().filter(|(_, desk)| !desk.busy) {
            let message = desk.book.message(now, &self.ledger, &desk.receiver);
            self.app.notify.waiting(name, desk.book.untold());
            let Some(message) = message else { continue };
            desk.busy = true;
            let (client, receiver) = (self.app.client.clone(), Arc::clone(&desk.receiver));
            self.sends.spawn(async move {
                let sent = send(&client, &receiver, &message.later_by(behind)).await;
                (receiver.name.clone(), message, sent)
            });
        }
    }

    /// Tells how a message ended. A receiver that fails is logged once, and when it is well.
    fn sent(&mut self, (name, message, sent): Sent) {
        let now = self.clock.now();
        let delivery = sent.as_ref().map_or_else(|error| error.delivery, |_| Delivery::Success);
        self.app.notify.delivered(&name, delivery, Time::now());
        let Some(desk) = self.desks.get_mut(&name) else { return };
        desk.busy = false;
        let alerts = message.notices.len();
        match sent {
            Ok(took) => {
                if desk.book.failures() > 0 {
                    tracing::info!(receiver = name, "the receiver takes messages again");
                }
                tracing::debug!(receiver = name, alerts, ?took, "a message was sent");
                desk.book.sent(now, message);
                self.unsaved.insert(format!("{BOOK}{name}"));
            }
            Err(error) => {
                if desk.book.failures() == 0 {
                    tracing::warn!(receiver = name, alerts, %error, "a message was not sent; it is tried again");
                } else {
                    tracing::debug!(receiver = name, alerts, %error, "a message was not sent");
                }
                desk.book.failed(now, error.wait);
            }
        }
    }

    /// Writes what changed. What cannot be written is tried again with the next change.
    async fn save(&mut self) {
        if self.unsaved.is_empty() {
            return;
        }
        let part = |part: &String| {
            let text = match part.strip_prefix(BOOK) {
                None => {
                    // By the time of day, which the next life begins with.
                    let later = |active: &Active| Active {
                        since: active.since.plus_millis(self.clock.behind),
                        ..active.clone()
                    };
                    let active = self.ledger.active().iter();
                    let active: Vec<(&Key, Active)> =
                        active.map(|(key, active)| (key, later(active))).collect();
                    serde_json::to_string(&active).ok()
                }
                Some(name) => self.desks.get(name).map(|desk| desk.book.kept(self.clock.behind)),
            };
            (part.clone(), text)
        };
        let parts: Vec<(String, Option<String>)> = self.unsaved.iter().map(part).collect();
        match self.app.store.keep_notify_memory(parts).await {
            Ok(()) => self.unsaved.clear(),
            Err(error) => tracing::debug!(%error, "what receivers were told was not stored"),
        }
    }

    fn seen<'a>(&self, member: &'a Member, stale_after: Duration, day: Time) -> Seen<'a> {
        Seen {
            day,
            id: &member.target.id,
            group: &member.target.group,
            tags: &member.target.tags,
            state: member.state.as_deref(),
            last_success: member.last_success,
            polled: member.was_polled(),
            answers: member.status(stale_after) == ServerStatus::Online,
            failure: member.failure.as_ref().map(|failure| failure.message.as_str()),
            lost: member.lost,
            clock_ahead: member.clock_ahead,
            certificate: self.app.client.certificate_expires_at(&member.target),
        }
    }

    fn own(&self, day: Time) -> Own {
        let metrics = &self.app.metrics;
        let (polls, late) = metrics.late_polls();
        let errors = ["busy", "full", "failed"];
        Own {
            day,
            instance: self.instance.clone(),
            polls,
            late,
            store_errors: errors
                .map(|kind| (kind, metrics.store_errors.with_label_values(&[kind]).get()))
                .to_vec(),
            certificate: self.app.tls.as_ref().and_then(|tls| tls.expires_at()),
            tokens: self.app.access.expiries(day),
            server_files: metrics.server_files_used(),
            conflicts: metrics.server_conflicts.get().unsigned_abs(),
            config_refused: metrics.reload_ok.get() == 0,
            receivers: self.app.notify.counts(),
        }
    }
}

/// What a receiver gets by `pm2-poller notify test`: a name that no alert has, of no server.
pub fn test_message() -> Message {
    let now = Time::now();
    let labels = [("instance", host_name()), ("server", "test".to_owned())];
    let key = Key {
        alert: "Pm2NotifyTest".to_owned(),
        labels: labels.map(|(name, value)| (name.to_owned(), value)).into(),
    };
    let description = "This is a test by 'pm2-poller notify test'. Nothing is wrong.".to_owned();
    let notice = book::Notice { key, since: now, ended: None, description };
    Message { time: now, notices: vec![notice], left: 0 }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.chars().take(64).collect(),
    }
}
