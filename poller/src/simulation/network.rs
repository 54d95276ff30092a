//! The simulated network: requests and answers that take time, are lost, or break off, and links
//! that are cut.

use std::collections::{BTreeMap, HashMap};
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::http::Method;
use tokio::time::{Duration, Instant, sleep, sleep_until};
use wire::CommandId;

use super::exporter::Exporter;
use super::world::Chance;
use crate::client::{Answer, CallError};
use crate::config::Target;

pub(crate) type Asking<'a> = Pin<Box<dyn Future<Output = Result<Answer, CallError>> + Send + 'a>>;

/// A simulated server with its link.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) exporter: Exporter,
    pub(super) cut: bool,
    chance: Chance,
    /// When an answer of its journal was last at the poller.
    pub(super) heard: Option<Instant>,
}

/// What all of them have in common: the servers, and what went over the wires.
#[derive(Debug)]
pub(super) struct Wires {
    places: Mutex<BTreeMap<String, Place>>,
    /// How bad it is, in percent of requests; 0 once all is well again.
    pub(super) trouble: Mutex<u64>,
    /// One line a request.
    pub(super) trace: Mutex<Vec<String>>,
    begun: Instant,
}

/// How a poller's life asks: it ends with it.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(super) wires: Arc<Wires>,
    pub(super) dead: Arc<AtomicBool>,
}

impl Wires {
    pub(super) fn new(seed: u64, names: &[String], trouble: u64) -> Arc<Self> {
        let place = |(at, name): (usize, &String)| {
            let exporter = Exporter::new(name);
            let chance = Chance::new(seed, 1000 + at as u64);
            (name.clone(), Place { exporter, cut: false, chance, heard: None })
        };
        Arc::new(Self {
            places: Mutex::new(names.iter().enumerate().map(place).collect()),
            trouble: Mutex::new(trouble),
            trace: Mutex::default(),
            begun: Instant::now(),
        })
    }

    pub(super) fn places(&self) -> MutexGuard<'_, BTreeMap<String, Place>> {
        self.places.lock().expect("places")
    }

    pub(super) fn with<T>(&self, name: &str, look: impl FnOnce(&mut Place) -> T) -> T {
        look(self.places().get_mut(name).expect("a server"))
    }

    /// What last went to and from a server.
    pub(super) fn lately(&self, name: &str) -> Vec<String> {
        let trace = self.trace.lock().expect("trace");
        let of = trace.iter().filter(|line| line.split(' ').nth(1) == Some(name));
        let mut lines: Vec<String> = of.rev().take(20).cloned().collect();
        lines.reverse();
        lines
    }

    fn note(&self, name: &str, method: &Method, path: &str, what: &str) {
        // Ids of commands are random in every run.
        let path = if path.starts_with("/api/commands/") { "/api/commands" } else { path };
        let at = self.begun.elapsed().as_millis();
        self.trace.lock().expect("trace").push(format!("{at} {name} {method} {path}: {what}"));
    }
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Good,
    Refused,
    LostOnTheWay,
    BrokenBefore,
    AnswerLost,
    AnswerBroken,
}

impl Network {
    fn fate(&self, name: &str) -> (Fate, Duration, Duration) {
        let trouble = *self.wires.trouble.lock().expect("trouble");
        self.wires.with(name, |place| {
            let chance = &mut place.chance;
            let mut delay = || match chance.percent(trouble) {
                true => Duration::from_millis(chance.below(6_000)),
                false => Duration::from_millis(1 + chance.below(40)),
            };
            let (there, back) = (delay(), delay());
            let fate = match chance.percent(trouble) {
                false => Fate::Good,
                true => match chance.below(5) {
                    0 => Fate::Refused,
                    1 => Fate::LostOnTheWay,
                    2 => Fate::BrokenBefore,
                    3 => Fate::AnswerLost,
                    _ => Fate::AnswerBroken,
                },
            };
            (fate, there, back)
        })
    }

    pub(crate) fn ask<'a>(
        &'a self,
        method: Method,
        target: &'a Target,
        path: &'a str,
        body: Option<Vec<u8>>,
    ) -> Asking<'a> {
        Box::pin(async move {
            if self.dead.load(Ordering::Relaxed) {
                return pending().await;
            }
            let name = target.id.as_str();
            let (fate, there, back) = self.fate(name);
            self.wires.note(name, &method, path, &format!("{fate:?}"));
            sleep(there).await;
            let (cut, down) = self.wires.with(name, |place| (place.cut, place.exporter.down));
            if cut || fate == Fate::LostOnTheWay {
                return pending().await;
            }
            if down || fate == Fate::Refused {
                return Err(CallError::Connect("Connection refused".to_owned()));
            }
            if fate == Fate::BrokenBefore {
                return Err(CallError::Broken("reset".to_owned()));
            }
            let life = self.wires.with(name, |place| place.exporter.life);
            let answer = self.serve(name, &method, path, body.as_deref(), back).await;
            sleep(back).await;
            if self.wires.with(name, |place| place.exporter.life) != life {
                // Its connections ended with it.
                return Err(CallError::Broken("reset".to_owned()));
            }
            if fate == Fate::AnswerLost || self.wires.with(name, |place| place.cut) {
                return pending().await;
            }
            if fate == Fate::AnswerBroken || self.wires.with(name, |place| place.exporter.down) {
                return Err(CallError::Broken("reset".to_owned()));
            }
            if self.dead.load(Ordering::Relaxed) {
                return pending().await;
            }
            self.wires.note(name, &method, path, "answered");
            if path.starts_with("/api/journal") {
                self.wires.with(name, |place| place.heard = Some(Instant::now()));
            }
            Ok(answer)
        })
    }

    async fn serve(
        &self,
        name: &str,
        method: &Method,
        path: &str,
        body: Option<&[u8]>,
        takes: Duration,
    ) -> Answer {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query: HashMap<String, String> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let wait = query
            .get("wait")
            .map_or(Duration::ZERO, |wait| service::quantity::duration(wait).expect("a duration"));
        let end = Instant::now() + wait;
        let id = path.strip_prefix("/api/commands/").map(|id| id.parse::<CommandId>());
        let id = id.transpose().expect("an id");
        if let Some(id) = &id {
            // Some commands take long.
            let takes = takes * 3;
            let first = self.wires.with(name, |it| it.exporter.command(method, id, body, takes));
            if wait.is_zero() {
                return first;
            }
        }
        let until = match &id {
            Some(id) => self.wires.with(name, |place| place.exporter.ends(id)).min(end),
            None => end,
        };
        let news = self.wires.with(name, |place| Arc::clone(&place.exporter.news));
        loop {
            let told = news.notified();
            let has_news = self.wires.with(name, |place| place.exporter.has_news(&query));
            if Instant::now() >= until || (id.is_none() && has_news) {
                break;
            }
            tokio::select! {
                () = told => {}
                () = sleep_until(until) => {}
            }
        }
        self.wires.with(name, |place| match &id {
            Some(id) => place.exporter.command(&Method::GET, id, None, takes),
            None => place.exporter.journal(&query),
        })
    }
}
