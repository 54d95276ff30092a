//! One command for many servers: one after another or in batches, each watched until it is well
//! and has stayed so; the first that is not ends it. It is one record with a command a part, all
//! of it on the disk before anything is sent. A restart of the poller ends it too: what was sent
//! is asked for like any other command, and the rest is not run unasked.

mod roll;
mod touched;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use service::problem::ProblemResponse;
use tokio::sync::watch;
use wire::{Action, AppName, CommandId, CommandStatus, ServerId, SlotId, Target, Time};

pub use self::touched::Touched;
use self::touched::touched;
use super::order::Order;
use super::record::new_id;
use super::{Commands, millis, unavailable};
use crate::access::Caller;
use crate::store::{
    Canceller, Keyed, NewAudit, NewCommand, NewSelection, Selected, StoredSelection,
};

/// Most parts, and most that run at a time.
const MOST: usize = 2000;
pub(crate) const MOST_AT_A_TIME: usize = 100;
/// Selections under way at a time.
const MOST_UNDER_WAY: usize = 16;

/// Which servers are meant: those that fit all of it and have the app or slot.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Select {
    /// An app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppName>,
    /// In which PM2, by its directory: where exporters watch several that have the app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pm2_home: Option<String>,
    /// Or a slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotId>,
    /// Servers of this group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Servers with this tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// These servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Servers>,
}

/// One, or several.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(untagged, expecting = "expected a server's id, or a list of them,")]
pub enum Servers {
    /// One.
    One(ServerId),
    /// Several.
    Several(BTreeSet<ServerId>),
}

impl Servers {
    fn all(&self) -> Vec<&ServerId> {
        match self {
            Self::One(id) => vec![id],
            Self::Several(ids) => ids.iter().collect(),
        }
    }
}

/// What somebody wants done to a selection.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// To which.
    pub select: Select,
    /// What each part is about.
    pub target: Target,
    /// What.
    pub action: Action,
    /// What that takes.
    pub order: Order,
    /// Parts at a time.
    pub batch: usize,
    /// Most that may be away at a time.
    pub max_unavailable: Option<usize>,
    /// How long each is watched once it is well.
    pub settle: Duration,
    /// How long it may take to become well.
    pub health_timeout: Duration,
    /// Their own name for the request.
    pub key: Option<String>,
    /// Who.
    pub caller: Caller,
    /// From where.
    pub address: IpAddr,
}

/// What became of a request.
enum BegunRollout {
    /// Its key was used before, by this one.
    Before(Box<StoredSelection>),
    /// It goes its way, and tells when it has ended.
    Now(CommandId, watch::Receiver<bool>),
}

/// One that goes its way.
#[derive(Clone, Debug)]
pub(super) struct Rolling {
    done: watch::Sender<bool>,
    cancelled: tokio_util::sync::CancellationToken,
}

impl Commands {
    /// How many of these servers do not serve the target, as far as is known.
    fn away(&self, servers: &[ServerId], select: &Select, target: &Target) -> usize {
        let stale_after = self.fleet.stale_after();
        let available = |id: &&ServerId| {
            let member = self.fleet.get(id);
            let touched = member.and_then(|it| touched(&it, select, target, stale_after));
            !touched.is_some_and(|touched| touched.available)
        };
        servers.iter().filter(available).count()
    }

    /// Puts a selection on record and begins with it; gives what is known of it after at most
    /// `wait`. `whole` is the request, which tells a repeated one from another. When nobody waits
    /// for this any more, it goes on.
    ///
    /// # Errors
    /// It was refused, and the refusal is on record; or it could not be put on record, and
    /// nothing was sent.
    pub async fn roll_out(
        self: &Arc<Self>,
        rollout: Rollout,
        whole: Vec<u8>,
        wait: Duration,
    ) -> Result<StoredSelection, ProblemResponse> {
        let this = Arc::clone(self);
        let begun = self.whole(async move { this.begin_rollout(rollout, whole).await }).await?;
        let (id, mut ended) = match begun {
            BegunRollout::Before(before) => return Ok(*before),
            BegunRollout::Now(id, ended) => (id, ended),
        };
        let _ = tokio::time::timeout(wait, ended.wait_for(|ended| *ended)).await;
        self.rolled(&id).await
    }

    async fn begin_rollout(
        self: &Arc<Self>,
        rollout: Rollout,
        whole: Vec<u8>,
    ) -> Result<BegunRollout, ProblemResponse> {
        let id = new_id().map_err(|error| {
            tracing::error!(%error, "no random numbers");
            unavailable("no random numbers for the command's id")
        })?;
        let parts = match self.parts(&rollout, &id).await {
            Ok(parts) => parts,
            Err(problem) => {
                // What it is refused for now may not have been so the first time.
                let caller = &rollout.caller;
                let may = caller.require_action(rollout.action).is_ok();
                let before = self.keyed(caller, rollout.key.as_ref(), may).await?;
                let may_know = match &before {
                    Some(Keyed::Selection(id)) => {
                        self.rolled(id).await?.parts.iter().all(|it| self.saw(caller, &it.server))
                    }
                    _ => true,
                };
                return match before.filter(|_| may_know) {
                    Some(before) => self.rolled_before(before, &whole).await,
                    None => Err(self.refuse_rollout(&rollout, problem).await),
                };
            }
        };
        let body = rollout.order.body(&rollout.target, rollout.action).map_err(|error| {
            tracing::error!(%error, "a command could not be written as JSON");
            ProblemResponse::bad_request("body: it cannot be passed on")
        })?;
        let new = NewSelection {
            id: id.clone(),
            selected: serde_json::to_value(&rollout.select).unwrap_or_default(),
            target: rollout.target.clone(),
            action: rollout.action,
            requested_by: rollout.caller.name().to_owned(),
            requested_via: rollout.caller.via(),
            token: rollout.caller.token(),
            requested_from: rollout.address.to_string(),
            requested_at: Time::now(),
            summary: rollout.order.summary(rollout.action),
            batch: rollout.batch,
            max_unavailable: rollout.max_unavailable,
            settle: millis(rollout.settle),
            idempotency_key: rollout.key.clone(),
            body_hash: rollout.key.is_some().then(|| Order::hash(&whole, &id).to_vec()),
            parts: parts.clone(),
        };
        match self.store.insert_selection(new).await {
            Ok(Selected::New) => {}
            Ok(Selected::Before(before)) => return self.rolled_before(before, &whole).await,
            Err(error) => {
                self.metrics.store_errors.with_label_values(&[error.label()]).inc();
                tracing::error!(%error, "a selection could not be put on record and was not begun");
                return Err(unavailable(
                    "the command could not be put on record, so it was not sent",
                ));
            }
        }
        tracing::info!(
            command = %id, target = %rollout.target, action = %rollout.action,
            servers = parts.len(), by = rollout.caller.name(), from = %rollout.address,
            "a command for a selection"
        );
        let (done, ended) = watch::channel(false);
        let rolling = Rolling { done, cancelled: self.stopping.child_token() };
        self.rolling().insert(id.clone(), rolling.clone());
        let (this, of) = (Arc::clone(self), id.clone());
        self.tasks.spawn(async move {
            this.roll(&of, &rollout, parts, body, &rolling).await;
            this.rolling().remove(&of);
            rolling.done.send_replace(true);
        });
        Ok(BegunRollout::Now(id, ended))
    }

    async fn parts(
        &self,
        rollout: &Rollout,
        id: &CommandId,
    ) -> Result<Vec<NewCommand>, ProblemResponse> {
        rollout.caller.require_action(rollout.action)?;
        let touched = self.touched(&rollout.caller, &rollout.select, &rollout.target).await?;
        self.may_begin(rollout, &touched)?;
        let part = |touched: Touched| {
            let part = new_id().map_err(|error| {
                tracing::error!(%error, "no random numbers");
                unavailable("no random numbers for the command's id")
            })?;
            Ok(NewCommand {
                id: part,
                server: touched.server,
                target: rollout.target.clone(),
                action: rollout.action,
                pm2_home: rollout.order.pm2_home().cloned(),
                status: CommandStatus::Queued,
                requested_by: rollout.caller.name().to_owned(),
                requested_via: rollout.caller.via(),
                token: rollout.caller.token(),
                requested_from: rollout.address.to_string(),
                requested_at: Time::now(),
                refusal: None,
                idempotency_key: None,
                summary: rollout.order.summary(rollout.action),
                body_hash: None,
                follow_until: None,
                queued_until: None,
                body: None,
                part_of: Some(id.clone()),
            })
        };
        touched.into_iter().map(part).collect()
    }

    async fn refuse_rollout(&self, rollout: &Rollout, problem: ProblemResponse) -> ProblemResponse {
        if rollout.caller.token().is_none() || !self.access.refusal_has_row(rollout.address) {
            return problem.on_record();
        }
        let row = NewAudit {
            who: rollout.caller.name().to_owned(),
            via: rollout.caller.via(),
            address: rollout.address.to_string(),
            act: "command",
            outcome: "refused".to_owned(),
            subject: format!("{} {} of a selection", rollout.action, rollout.target),
            detail: Some(problem.problem().detail.clone()),
            ..NewAudit::default()
        };
        if let Err(error) = self.store.record(row).await {
            tracing::error!(%error, "a refused selection could not be put on record");
        }
        problem.on_record()
    }

    async fn rolled_before(
        &self,
        before: Keyed,
        body: &[u8],
    ) -> Result<BegunRollout, ProblemResponse> {
        let id = match &before {
            Keyed::Selection(id) => id,
            Keyed::Command(before) => return Err(key_of_another(&before.record.id)),
        };
        let before = self.rolled(id).await?;
        let hash = before.body_hash.as_deref().unwrap_or_default();
        if hash != Order::hash(body, id) {
            return Err(key_of_another(id));
        }
        if !before.status.is_final() {
            let detail = format!("the command with this Idempotency-Key, {id}, is under way");
            let problem = ProblemResponse::new(StatusCode::CONFLICT, "in_progress", detail);
            return Err(problem.at(format!("/api/commands/{id}")));
        }
        Ok(BegunRollout::Before(Box::new(before)))
    }

    async fn rolled(&self, id: &CommandId) -> Result<StoredSelection, ProblemResponse> {
        let found = self.store.selection(id).await.map_err(|error| {
            self.metrics.store_errors.with_label_values(&[error.label()]).inc();
            tracing::error!(%error, command = %id, "a selection cannot be read");
            unavailable("the command is on its way, and its record cannot be read")
        })?;
        found.ok_or_else(|| unavailable("the command's record is gone"))
    }

    /// Takes back what of a selection was not begun. What is under way goes on to its end.
    ///
    /// # Errors
    /// It has ended, or it cannot be put on record that it is cancelled.
    pub async fn cancel_rollout(
        self: &Arc<Self>,
        id: &CommandId,
        by: Canceller,
    ) -> Result<StoredSelection, ProblemResponse> {
        let (this, of) = (Arc::clone(self), id.clone());
        self.whole(async move { this.stop_rollout(of, by).await }).await?;
        self.rolled(id).await
    }

    async fn stop_rollout(&self, id: CommandId, by: Canceller) -> Result<(), ProblemResponse> {
        let cancelled = self.store.cancel_selection(id.clone(), by).await.map_err(|error| {
            self.metrics.store_errors.with_label_values(&[error.label()]).inc();
            tracing::error!(%error, command = %id, "a selection was not cancelled");
            unavailable("it could not be put on record that the command is cancelled")
        })?;
        if !cancelled {
            let status = self.rolled(&id).await?.status;
            let detail = format!("the command {id} has ended already: {}", status.as_str());
            return Err(ProblemResponse::new(StatusCode::CONFLICT, "conflict", detail));
        }
        if let Some(rolling) = self.rolling().get(&id) {
            rolling.cancelled.cancel();
        }
        Ok(())
    }
}

pub(super) fn key_of_another(before: &CommandId) -> ProblemResponse {
    ProblemResponse::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "key_reused",
        format!("Idempotency-Key: was used for another request, the command {before}"),
    )
}
