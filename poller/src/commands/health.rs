//! Whether what a command did is well: asked of the exporter itself, again and again, until it was
//! well for a while without a break.

use std::time::Duration;

use axum::http::Method;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};
use wire::{Action, AppGroup, Slot, Status, Target};

use crate::client::Client;
use crate::config;
use crate::poll::percent_encoded;

/// How often is asked.
const AGAIN: Duration = Duration::from_millis(250);
/// How long one question may take.
const WITHIN: Duration = Duration::from_secs(5);

/// How long is watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    /// It must be well by then.
    pub(super) within: Duration,
    /// And stay so for so long.
    pub(super) settle: Duration,
}

/// Whether an action is meant to leave something that runs.
pub(super) fn is_watched(target: &Target, action: Action) -> bool {
    match target {
        Target::App(_) => matches!(
            action,
            Action::Start | Action::Restart | Action::Reload | Action::Env | Action::Scale
        ),
        // A slot that is stopped serves its placeholder.
        Target::Slot(_) => true,
    }
}

/// Number, pid and restarts of each instance: another mark means that one was started anew.
type Mark = Vec<(u32, Option<u32>, u64)>;

/// How it is at a moment.
enum Look {
    /// Well.
    Well(Mark),
    /// Not yet, or not any more.
    Not(String),
    /// It will not be.
    Never(String),
    /// Nobody knows.
    Silent(String),
}

/// Waits until all of it is well and has stayed so; of an app in one PM2, where one is named.
///
/// # Errors
/// A sentence that says what is not.
pub(super) async fn watch(
    client: &Client,
    server: &config::Target,
    (target, home): (&Target, Option<&str>),
    watch: Watch,
) -> Result<(), String> {
    let begun = Instant::now();
    let mut well: Option<(Instant, Mark)> = None;
    loop {
        let look = look(client, server, target, home).await;
        match (look, &well) {
            (Look::Well(mark), None) => well = Some((Instant::now(), mark)),
            (Look::Well(mark), Some((_, before))) if mark != *before => {
                return Err(format!("{target} was started anew while it was watched"));
            }
            (Look::Well(_), Some(_)) => {}
            (Look::Never(words), _) => return Err(words),
            (Look::Not(words), Some((since, _))) => {
                let stayed = since.elapsed().as_secs_f64();
                return Err(format!("{target} was well for {stayed:.1} s, and then not: {words}"));
            }
            (Look::Not(words), None) if begun.elapsed() >= watch.within => {
                let within = watch.within;
                return Err(format!("{target} did not become well within {within:?}: {words}"));
            }
            (Look::Not(_), None) => {}
            (Look::Silent(words), _) => {
                if begun.elapsed() >= watch.within + watch.settle {
                    return Err(format!("nobody knows whether {target} is well: {words}"));
                }
                sleep(AGAIN).await;
                continue;
            }
        }
        let left = match &well {
            Some((since, _)) => watch.settle.saturating_sub(since.elapsed()),
            None => AGAIN,
        };
        if left.is_zero() {
            return Ok(());
        }
        sleep(left.min(AGAIN)).await;
    }
}

async fn look(
    client: &Client,
    server: &config::Target,
    target: &Target,
    home: Option<&str>,
) -> Look {
    match target {
        Target::App(name) => {
            let mut path = format!("/api/processes/{}", percent_encoded(name));
            if let Some(home) = home {
                path.push_str(&format!("?pm2_home={}", percent_encoded(home)));
            }
            match ask::<AppGroup>(client, server, &path).await {
                Ok(app) => of_app(&app),
                Err(words) => Look::Silent(words),
            }
        }
        Target::Slot(slot) => {
            match ask::<Slot>(client, server, &format!("/api/slots/{slot}")).await {
                Ok(slot) if slot.serving && slot.status == Some(Status::Online) => {
                    Look::Well(Vec::new())
                }
                Ok(slot) if slot.status == Some(Status::Errored) => {
                    Look::Never(format!("PM2 gave up starting {}", slot.process))
                }
                Ok(slot) => Look::Not(format!("slot {} does not serve", slot.slot)),
                Err(words) => Look::Silent(words),
            }
        }
    }
}

fn of_app(app: &AppGroup) -> Look {
    let bad = app.instances.iter().find(|it| it.status != Status::Online);
    match bad {
        Some(bad) if bad.status == Status::Errored => {
            Look::Never(format!("PM2 gave up starting {}", app.name))
        }
        Some(bad) => Look::Not(format!("{} is {}", app.name, bad.status.as_str())),
        None if app.instances.is_empty() => Look::Not(format!("{} is not there", app.name)),
        None => {
            let mark = |it: &wire::Process| (it.pm_id, it.pid, it.restarts.total());
            Look::Well(app.instances.iter().map(mark).collect())
        }
    }
}

async fn ask<T: DeserializeOwned>(
    client: &Client,
    server: &config::Target,
    path: &str,
) -> Result<T, String> {
    let answer = client.ask(Method::GET, server, path, None, WITHIN, wire::MAX_BODY_BYTES).await;
    let answer = answer.map_err(|error| error.to_string())?;
    if !answer.status.is_success() {
        return Err(format!("the exporter answered {}", answer.status));
    }
    serde_json::from_slice(&answer.body)
        .map_err(|_| "the exporter's answer makes no sense".to_owned())
}
