//! Polling: one task a server, started and ended as the registry says.

mod ask;
mod backoff;
mod check;
mod clock;
mod failure;
mod freshen;
mod offset;
mod rates;
mod task;
mod told;
mod wait;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wire::ServerId;

pub(crate) use ask::percent_encoded;
pub use failure::{Failure, Reason};
pub(crate) use wait::RESULTS as WAIT_RESULTS;

use crate::client::Client;
use crate::config::{Target, Timing};
use crate::fleet::Fleet;
use crate::metrics::Metrics;
use crate::store::Store;

/// Who is polled, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Every server, by id.
    pub targets: Vec<Arc<Target>>,
    /// When polls happen.
    pub timing: Timing,
    /// How long samples are kept, in milliseconds: older ones are not stored.
    pub keep_raw: i64,
}

/// What the poll tasks work with.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Where it is kept.
    pub store: Store,
    /// Where it is shown.
    pub fleet: Arc<Fleet>,
    /// Asks exporters.
    pub client: Client,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

struct Running {
    target: Arc<Target>,
    stop: CancellationToken,
}

/// Polls as the plan says, and as it changes, until `stop`. Servers that a change leaves as
/// they are keep their tasks and so miss no poll.
///
/// # Errors
/// The id of a server whose task died.
pub async fn run(
    tools: Tools,
    mut plan: watch::Receiver<Plan>,
    stop: CancellationToken,
) -> Result<(), String> {
    let mut tasks: JoinSet<ServerId> = JoinSet::new();
    let mut running: BTreeMap<ServerId, Running> = BTreeMap::new();
    let mut timing = None;
    loop {
        let now = plan.borrow_and_update().clone();
        let same_timing = timing.replace((now.timing, now.keep_raw)) == timing;
        let wanted: HashMap<&ServerId, &Arc<Target>> =
            now.targets.iter().map(|target| (&target.id, target)).collect();
        running.retain(|id, task| {
            let target = wanted.get(id);
            let keeps = same_timing && target.is_some_and(|target| **target == task.target);
            if !keeps {
                task.stop.cancel();
            }
            if target.is_none() {
                tools.fleet.remove(id);
            }
            keeps
        });
        for target in &now.targets {
            if running.contains_key(&target.id) {
                continue;
            }
            let stop = stop.child_token();
            let task = Running { target: Arc::clone(target), stop: stop.clone() };
            running.insert(target.id.clone(), task);
            let id = target.id.clone();
            let poll = task::Task::new(tools.clone(), Arc::clone(target), now.timing, now.keep_raw);
            tasks.spawn(async move {
                poll.run(stop).await;
                id
            });
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    while tasks.join_next().await.is_some() {}
                    return Ok(());
                }
                changed = plan.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return Err("the registry ended".to_owned()),
                },
                Some(ended) = tasks.join_next() => match ended {
                    // Ended because it was told to: its place is taken or gone.
                    Ok(_) => {}
                    Err(error) => return Err(format!("polling: {error}")),
                },
            }
        }
    }
}
