//! The six processes of a default workspace: the admin server and five slots, of which two
//! have an application.

use std::collections::VecDeque;

use wire::{
    ExitInfo, Instance, Process, RestartCause, RestartCounts, SampledProcess, Slot, SlotMore,
    SlotType, Status, Time,
};

use super::noise::{between, mixed};
use super::readings;

/// Starts that are remembered: samples of the past are of the process of then.
const STARTS: usize = 8;
const SLOTS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// One process.
#[derive(Debug)]
pub(super) struct Simulated {
    pub(super) instance: Instance,
    pm_id: u32,
    seed: u64,
    is_node: bool,
    slot: Option<&'static str>,
    status: Status,
    restarts: RestartCounts,
    last_exit: Option<ExitInfo>,
    /// When it was started, and how many restarts there were then; newest last.
    starts: VecDeque<(Time, u64)>,
}

/// All six, started one after another at `booted`.
pub(super) fn all(seed: u64, booted: Time) -> Vec<Simulated> {
    let slots = SLOTS.iter().map(|slot| (format!("slot-{slot}"), Some(*slot)));
    let names = std::iter::once(("admin-server".to_owned(), None)).chain(slots);
    (0..)
        .zip(names)
        .filter_map(|(number, (name, slot))| {
            let started = booted.plus_millis(5_000 + 700 * i64::from(number));
            Some(Simulated {
                instance: Instance {
                    name: name.parse().ok()?,
                    namespace: "default".into(),
                    instance_id: 0,
                    pm2_home: None,
                },
                pm_id: number,
                seed: mixed(seed, 100 + u64::from(number)),
                is_node: number < 3,
                slot,
                status: Status::Online,
                restarts: RestartCounts::default(),
                last_exit: None,
                starts: VecDeque::from([(started, 0)]),
            })
        })
        .collect()
}

impl Simulated {
    pub(super) fn is_node(&self) -> bool {
        self.is_node
    }

    pub(super) fn pm_id(&self) -> u32 {
        self.pm_id
    }

    pub(super) fn is_online(&self) -> bool {
        self.status == Status::Online
    }

    pub(super) fn ended(&mut self, at: Time, code: Option<i32>, then: Status) {
        self.status = then;
        self.last_exit = Some(ExitInfo { code, signal: None, at });
    }

    /// It runs again: a restart, but for one that was stopped.
    pub(super) fn started(&mut self, at: Time, cause: Option<RestartCause>) {
        if let Some(cause) = cause {
            self.restarts.add(cause, 1);
        }
        self.status = Status::Online;
        if self.starts.len() == STARTS {
            self.starts.pop_front();
        }
        self.starts.push_back((at, self.restarts.total()));
    }

    /// The start that a moment belongs to.
    fn start(&self, at: Time) -> (Time, u64) {
        let before = self.starts.iter().rev().find(|(since, _)| *since <= at);
        before.or(self.starts.front()).copied().unwrap_or_default()
    }

    pub(super) fn sampled(&self, at: Time) -> SampledProcess {
        let (since, restarts) = self.start(at);
        let readings = match self.is_online() {
            true => readings::process(self.seed, self.is_node, since, at),
            false => wire::Readings::default(),
        };
        SampledProcess { instance: self.instance.clone(), status: self.status, restarts, readings }
    }

    pub(super) fn process(&self, at: Time) -> Process {
        let (since, restarts) = self.start(at);
        let online = self.is_online();
        let text = |node: &str, other: &str| if self.is_node { node } else { other }.to_owned();
        Process {
            instance: self.instance.clone(),
            pm_id: self.pm_id,
            pid: online.then(|| 1000 + between(self.seed, restarts, 0, 30_000) as u32),
            status: self.status,
            exec_mode: "fork".to_owned(),
            interpreter: text("node", "none"),
            node_version: text("20.11.1", ""),
            version: text("1.4.2", ""),
            started_at: online.then_some(since),
            restarts: self.restarts,
            exceptions: 0,
            last_exit: self.last_exit.clone(),
            slot: self.slot.and_then(|slot| slot.parse().ok()),
            online_without_pid: false,
            readings: self.sampled(at).readings,
        }
    }

    /// The slot that it serves.
    pub(super) fn slot(&self) -> Option<Slot> {
        let slot = self.slot?;
        let port = 3001 + SLOTS.iter().position(|known| *known == slot)? as u16;
        let since = self.starts.front()?.0;
        let deployed = |text: &str| self.is_node.then(|| text.to_owned());
        Some(Slot {
            slot: slot.parse().ok()?,
            port,
            process: self.instance.name.clone(),
            kind: if self.is_node { SlotType::Deployed } else { SlotType::Placeholder },
            status: Some(self.status),
            serving: self.is_online(),
            foreign_owner: None,
            repository: deployed("https://github.com/example/shop"),
            branch: deployed("main"),
            commit: deployed("9fceb02d0ae598e95dc970b74767f19372d61af8"),
            deployed_at: self.is_node.then_some(since),
            deployed_by: deployed("poller"),
            more: Some(Box::new(SlotMore {
                url: format!("http://localhost:{port}"),
                deploys_healthy: u64::from(self.is_node),
                last_deploy_at: self.is_node.then_some(since),
                ..SlotMore::default()
            })),
        })
    }
}
