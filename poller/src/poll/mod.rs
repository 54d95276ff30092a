//! Polling: one task a server, started and ended as the registry says.

mod ahead;
mod ask;
mod backoff;
mod check;
mod clock;
mod failure;
mod flood;
mod freshen;
mod offset;
mod rates;
mod task;
mod told;
mod wait;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use wire::ServerId;

pub(crate) use ask::percent_encoded;
pub(crate) use check::are_good;
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
    task: AbortHandle,
}

/// Polls as the plan says, and as it changes, until `stop`. Servers that a change leaves as
/// they are keep their tasks and so miss no poll.
///
/// # Errors
/// The task of a server died.
pub async fn run(
    tools: Tools,
    mut plan: watch::Receiver<Plan>,
    stop: CancellationToken,
) -> Result<(), String> {
    let mut tasks = JoinSet::new();
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
                // What is under way is dropped: what it brought so far is stored, and the cursor knows
                // where to go on.
                task.task.abort();
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
            let poll = task::Task::new(tools.clone(), Arc::clone(target), now.timing, now.keep_raw);
            let task = tasks.spawn(poll.run());
            running.insert(target.id.clone(), Running { target: Arc::clone(target), task });
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    tasks.shutdown().await;
                    return Ok(());
                }
                changed = plan.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return Err("the registry ended".to_owned()),
                },
                Some(ended) = tasks.join_next() => match ended {
                    // Ended because it was told to: its place is taken or gone.
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => return Err(format!("polling: {error}")),
                    Ok(()) => return Err("polling a server came to an end".to_owned()),
                },
            }
        }
    }
}
