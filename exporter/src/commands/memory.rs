//! Commands that were taken: an id means one thing for good.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::timeout;
use wire::{CommandId, CommandRecord};

/// Ended commands that are remembered, so that a repeat finds its outcome.
const REMEMBERED: usize = 1_000;

/// What was asked for, to tell whether it is asked for again: only that is kept, since values may be
/// secrets, and large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked([u8; 32]);

impl Asked {
    /// Equal for what is written as the same JSON.
    pub(crate) fn of(request: &impl Serialize) -> serde_json::Result<Self> {
        Ok(Self(Sha256::digest(serde_json::to_vec(request)?).into()))
    }
}

/// One of them: what was asked for, and how far it is.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) asked: Asked,
    pub(crate) record: watch::Sender<CommandRecord>,
}

impl Known {
    /// How far it is when it has ended, or after `wait`.
    pub(crate) async fn ended(&self, wait: Duration) -> CommandRecord {
        let mut record = self.record.subscribe();
        let _ = timeout(wait, record.wait_for(|record| record.status.is_final())).await;
        record.borrow().clone()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    known: HashMap<CommandId, Arc<Known>>,
    order: VecDeque<CommandId>,
}

impl Memory {
    pub(crate) fn get(&self, id: &CommandId) -> Option<&Arc<Known>> {
        self.known.get(id)
    }

    /// Forgets the oldest that ended, where there are too many. `false` when none has.
    #[must_use]
    pub(crate) fn make_room(&mut self) -> bool {
        let known = &mut self.known;
        while self.order.len() >= REMEMBERED {
            let ended = |id: &CommandId| {
                known.get(id).is_none_or(|known| known.record.borrow().status.is_final())
            };
            let Some(at) = self.order.iter().position(ended) else { return false };
            if let Some(old) = self.order.remove(at) {
                known.remove(&old);
            }
        }
        true
    }

    /// Takes one whose id is not known yet.
    pub(crate) fn insert(&mut self, asked: Asked, record: CommandRecord) -> Arc<Known> {
        let id = record.id.clone();
        let known = Arc::new(Known { asked, record: watch::channel(record).0 });
        self.known.insert(id.clone(), Arc::clone(&known));
        self.order.push_back(id);
        known
    }
}

#[cfg(test)]
mod tests {
    use wire::{Action, CommandStatus, Target, Time};

    use super::*;

    fn record(number: usize) -> CommandRecord {
        let (id, target) =
            (format!("c{number}").parse().unwrap(), Target::App("web".parse().unwrap()));
        CommandRecord::queued(id, target, Action::Restart, "ops".to_owned(), Time::now())
    }

    #[tokio::test]
    async fn the_oldest_that_ended_goes_and_what_runs_stays() {
        let mut memory = Memory::default();
        for number in 0..REMEMBERED {
            assert!(memory.make_room());
            memory.insert(Asked::of(&number).unwrap(), record(number));
        }
        assert!(!memory.make_room(), "all of them run");
        let of = |number: usize| format!("c{number}").parse::<CommandId>().unwrap();
        let ended = Arc::clone(memory.get(&of(7)).unwrap());
        let now = ended.ended(Duration::ZERO).await;
        assert_eq!((now.status, ended.asked), (CommandStatus::Queued, Asked::of(&7).unwrap()));
        ended.record.send_modify(|record| record.status = CommandStatus::Failed);
        assert_eq!(ended.ended(Duration::MAX).await.status, CommandStatus::Failed);
        assert!(memory.make_room());
        assert!(memory.get(&of(7)).is_none());
        assert!(memory.get(&of(0)).is_some());
    }
}
