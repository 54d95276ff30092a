//! The steps of a change that touch what runs, and the trial before them.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use wire::{CommandId, PortOwner, RestartCause};

use super::child::{Task, is_marked};
use super::log::Log;
use super::plan::{Occupant, Seen, Went};
use super::port;
use super::probe::{Probe, Unwell, is_spare, spare_port};
use super::run::{Cut, Failed, Runner};
use super::workshop::Stuck;
use crate::pm2::launch::Listing;

/// How soon a daemon that is away is asked again.
const AWAY: Duration = Duration::from_millis(500);

impl Runner<'_> {
    fn probe<'a>(&self, port: u16, path: Option<&'a str>) -> Probe<'a> {
        let settings = &self.workshop.settings;
        Probe { port, path, attempts: settings.probe_attempts, interval: settings.probe_interval }
    }

    fn health_path(&self, occupant: &Occupant) -> Option<String> {
        match occupant {
            Occupant::Placeholder => None,
            Occupant::Release(id) => {
                self.managed.state().deployed(id).and_then(|known| known.health_path.clone())
            }
        }
    }

    /// Runs the release beside what runs, on a spare port.
    pub(super) async fn try_out(&self, occupant: &Occupant, log: &Log) -> Result<(), Failed> {
        let Occupant::Release(id) = occupant else { return Ok(()) };
        let spare = || {
            spare_port().map_err(|error| Failed::Wrong(format!("there is no spare port: {error}")))
        };
        let port = spare()?;
        match self.try_on(port, occupant, id, log).await {
            // Somebody else was given the port before the application took it.
            Err(Failed::Wrong(_)) if !is_spare(port) => {
                self.try_on(spare()?, occupant, id, log).await
            }
            result => result,
        }
    }

    async fn try_on(
        &self,
        port: u16,
        occupant: &Occupant,
        id: &CommandId,
        log: &Log,
    ) -> Result<(), Failed> {
        let place = &self.managed.place;
        let (start, mut env) = {
            let state = self.managed.state();
            let wanted = self.workshop.wanted(place, &state, occupant).map_err(Failed::Wrong)?;
            let own = state.deployed(id).map(|known| known.env.clone()).unwrap_or_default();
            let mut env = self.workshop.application_env(place, &state, &own, port);
            for (name, value) in &wanted.start.env {
                env.entry(name.clone()).or_insert_with(|| value.clone());
            }
            (wanted.start, env)
        };
        env.insert("PORT".to_owned(), port.to_string());
        let (program, args) = match &start.node {
            Some(flags) => {
                let script = start.script.display().to_string();
                let words = flags.iter().cloned().chain([script]).chain(start.args.clone());
                (self.workshop.node.clone(), words.collect())
            }
            None => (start.script.clone(), start.args.clone()),
        };
        log.note(&format!("trying it on port {port}: {}", start.shown()));
        log.forget_lines();
        let mark = self.workshop.mark(place);
        let task = Task {
            program: &program,
            args: &args,
            cwd: &start.cwd,
            env: &env,
            mark: &mark,
            grace: self.workshop.settings.kill_timeout,
        };
        let mut started = task.start(log).map_err(|error| Failed::Wrong(error.to_string()))?;
        let path = self.health_path(occupant);
        let probe = self.probe(port, path.as_deref());
        let result = probe.until_well(self.shutdown, || std::future::ready(started.ended())).await;
        let elsewhere = match (&result, started.pid()) {
            (Err(Unwell::Never(_)), Some(pid)) => port::listened_by(&port::family(pid)),
            _ => Vec::new(),
        };
        // Of whom it is not known who they are, it may be the application itself.
        let is_strange =
            |owner: &PortOwner| !owner.own && owner.pid > 0 && !is_marked(owner.pid, &mark);
        let stranger = match &result {
            Ok(()) => port::owners(&[(port, started.pid())]).remove(&port).filter(is_strange),
            Err(_) => None,
        };
        started.end().await;
        let lines = log.last_lines();
        let taken = lines.iter().any(|line| line.contains("EADDRINUSE"));
        match result {
            // Somebody else was given the port meanwhile, and answers: that says nothing of the application.
            Ok(()) => stranger.map_or(Ok(()), |stranger| {
                let who = port::in_words(&stranger);
                Err(Failed::Wrong(format!("port {port}, which it was given, is held by {who}")))
            }),
            Err(Unwell::Stopped) => Err(Failed::Stopped),
            Err(Unwell::Gone(how)) if taken => Err(Failed::Wrong(format!(
                "the application {how}: the port it wants is in use (EADDRINUSE). It was given \
                 PORT={port}, which is free: it must listen on the port that PORT names"
            ))),
            Err(Unwell::Gone(how)) => {
                Err(Failed::Wrong(format!("the application {how} before it was well")))
            }
            Err(Unwell::Never(_)) if !elsewhere.is_empty() && !elsewhere.contains(&port) => {
                let ports: Vec<String> = elsewhere.iter().map(u16::to_string).collect();
                Err(Failed::Wrong(format!(
                    "the application ignores PORT: it listens on {} and not on PORT={port}",
                    ports.join(", ")
                )))
            }
            Err(Unwell::Never(last)) => Err(Failed::Wrong(format!(
                "the application was not well within {} attempts {:?} apart: {last}",
                probe.attempts, probe.interval
            ))),
        }
    }

    /// Whether somebody else holds the port: nothing is begun then.
    pub(super) async fn stop_if_foreign(&self) -> Result<(), Failed> {
        if self.reclaim {
            return Ok(());
        }
        let Ok(listing) = self.workshop.list().await else { return Ok(()) };
        match self.workshop.foreign_owner(&listing, &self.managed.place) {
            None => Ok(()),
            Some(owner) => Err(Failed::Wrong(format!(
                "port {} is held by {}, which is not the slot's; end it, or ask with \
                 \"reclaim\": true",
                self.managed.place.port,
                port::in_words(&owner)
            ))),
        }
    }

    /// Why the process starts anew: what is exchanged for itself is restarted.
    fn cause(&self) -> RestartCause {
        match &self.managed.state().standing.change {
            Some(change) if change.from == change.to => RestartCause::Manual,
            _ => RestartCause::Deploy,
        }
    }

    /// Exchanges the slot's process. A PM2 that is away is waited for, but not for ever.
    pub(super) async fn switch(&self, to: &Occupant, reclaim: bool) -> Result<Went, Cut> {
        let place = &self.managed.place;
        let until = Instant::now() + self.workshop.settings.daemon_wait;
        let mut told = false;
        loop {
            let wanted = {
                let mut state = self.managed.state();
                if *to == Occupant::Placeholder {
                    state.foreign_placeholder = false;
                }
                self.workshop.wanted(place, &state, to)
            };
            let wanted = match wanted {
                Ok(wanted) => wanted,
                Err(reason) => return Ok(Went::Wrong(reason)),
            };
            let turn = Arc::clone(self.turn).acquire_owned().await;
            let cut_off = self.cut_off.load(Ordering::Relaxed);
            self.workshop.intend(place, Some(self.cause()));
            let result = self.workshop.exchange(place, &wanted, reclaim, cut_off).await;
            self.workshop.look().await;
            self.workshop.intend(place, None);
            drop(turn);
            match result {
                Ok(()) => return Ok(Went::Well),
                Err(Stuck::Wrong(reason)) => return Ok(Went::Wrong(reason)),
                Err(Stuck::Away(reason)) => {
                    self.cut_off.store(true, Ordering::Relaxed);
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(slot = %place.slot, %reason, "a switch waits for PM2");
                    }
                    if Instant::now() >= until {
                        return Err(Cut::Away(reason));
                    }
                    tokio::select! {
                        () = sleep(AWAY) => {}
                        () = self.shutdown.drain.cancelled() => return Err(Cut::Stopped),
                    }
                }
            }
        }
    }

    /// Whether what was started is well on the slot's port, and stays so.
    pub(super) async fn check(&self, occupant: &Occupant) -> Result<(), Failed> {
        let place = &self.managed.place;
        let name = format!("slot-{}", place.slot);
        let path = self.health_path(occupant);
        let probe = self.probe(place.port, path.as_deref());
        let asked = Mutex::new(Instant::now());
        // PM2 is asked now and then: a process that it started again is not well.
        let gone = || async {
            {
                let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
                if asked.elapsed() < Duration::from_millis(200) {
                    return None;
                }
                *asked = Instant::now();
            }
            let Ok(listing) = self.workshop.list().await else {
                self.cut_off.store(true, Ordering::Relaxed);
                return None;
            };
            let Some(running) = listing.named(&name).next() else {
                return Some("PM2 has no such process any more".to_owned());
            };
            // A daemon that was restarted meanwhile runs what its list holds.
            let seen = {
                let state = self.managed.state();
                self.workshop.seen(&listing, place, &state)
            };
            if seen != Seen::Occupant(occupant.clone()) {
                return Some("PM2 runs something else there".to_owned());
            }
            let code = running.exit_code.map(|code| format!(" (code {code})")).unwrap_or_default();
            match running.status.as_str() {
                "errored" => Some(format!("it crashed{code}, and PM2 gave up")),
                "stopped" => Some(format!("it ended{code}")),
                _ if running.restarts > 0 => Some(format!("it crashed after its start{code}")),
                _ => None,
            }
        };
        let unwell = |unwell: Unwell| match unwell {
            Unwell::Gone(how) => Failed::Wrong(format!("on port {}: {how}", place.port)),
            Unwell::Never(last) => Failed::Wrong(format!("on port {}: {last}", place.port)),
            Unwell::Stopped => Failed::Stopped,
        };
        probe.until_well(self.shutdown, gone).await.map_err(unwell)?;
        if let Ok(listing) = self.workshop.list().await
            && let Some(owner) = self.workshop.foreign_owner(&listing, place)
        {
            return Err(Failed::Wrong(format!(
                "port {} is held by {}, not by the slot's process",
                place.port,
                port::in_words(&owner)
            )));
        }
        if *occupant != Occupant::Placeholder {
            let until = Instant::now() + self.workshop.settings.settle;
            while Instant::now() < until {
                if self.shutdown.drain.is_cancelled() {
                    return Err(Failed::Stopped);
                }
                if let Some(how) = gone().await {
                    return Err(unwell(Unwell::Gone(how)));
                }
                let left = until.saturating_duration_since(Instant::now());
                sleep(Duration::from_millis(50).min(left)).await;
            }
            let last = Probe { attempts: 2, ..probe };
            last.until_well(self.shutdown, gone).await.map_err(unwell)?;
        }
        // What answers may be what a daemon brought back while PM2 could not be asked.
        let listing = self.sure_list().await?;
        let seen = self.workshop.seen(&listing, place, &self.managed.state());
        if seen != Seen::Occupant(occupant.clone()) {
            return Err(unwell(Unwell::Gone("PM2 runs something else there".to_owned())));
        }
        Ok(())
    }

    /// PM2's list. A PM2 that is away is waited for, but not for ever.
    async fn sure_list(&self) -> Result<Listing, Failed> {
        let until = Instant::now() + self.workshop.settings.daemon_wait;
        loop {
            let reason = match self.workshop.list().await {
                Ok(listing) => return Ok(listing),
                Err(error) => error.to_string(),
            };
            self.cut_off.store(true, Ordering::Relaxed);
            if Instant::now() >= until {
                return Err(Failed::Away(reason));
            }
            tokio::select! {
                () = sleep(AWAY) => {}
                () = self.shutdown.drain.cancelled() => return Err(Failed::Stopped),
            }
        }
    }
}
