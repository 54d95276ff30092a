//! A command on its way: what PM2 is asked for, instance by instance.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use service::shutdown::Shutdown;
use wire::{Action, AppName, CommandStatus, InstanceOutcome, Process, RestartCause, Time};

use super::arguments::Task;
use super::memory::Known;
use crate::named;
use crate::pm2::{CallError, Home, Intent};

/// What one instance may take: PM2 waits for a graceful end and a new worker's word.
const INSTANCE_WITHIN: Duration = Duration::from_secs(60);
/// What a custom action may take.
const TRIGGER_WITHIN: Duration = Duration::from_secs(30);

pub(super) struct Run {
    pub(super) home: Arc<Home>,
    pub(super) known: Arc<Known>,
    pub(super) app: AppName,
    pub(super) task: Task,
    pub(super) save: bool,
    pub(super) shutdown: Shutdown,
}

impl Run {
    pub(super) async fn run(&self) {
        let ids = self.home.table(|table| table.pm_ids(&self.app));
        let before = self.instances(&ids);
        self.known.record.send_modify(|record| record.before = before);
        self.home.table(|table| table.intend(&self.app, self.intent()));
        let outcomes = match &self.task {
            Task::Scale(count) => self.scale(&ids, *count).await,
            _ => self.each(&ids).await,
        };
        // What PM2 says now is the answer; without it the outcomes stand alone.
        let seen =
            self.home.refresh().await.map_err(|error| format!("done, but not confirmed: {error}"));
        self.home.table(|table| table.intend(&self.app, None));
        let ids = self.home.table(|table| table.pm_ids(&self.app));
        let after = self.instances(&ids);
        let failed: Vec<&str> =
            outcomes.iter().filter_map(|outcome| outcome.error.as_deref()).collect();
        let failure = match &failed[..] {
            [] if outcomes.is_empty() => Some(format!("{} is gone", self.app)),
            [] => None,
            [first, ..] if failed.len() == outcomes.len() => Some((*first).to_owned()),
            [first, ..] => {
                Some(format!("{} of {} instances: {first}", failed.len(), outcomes.len()))
            }
        };
        let saved = if self.save && failure.is_none() { self.save_list().await } else { Ok(()) };
        self.known.record.send_modify(|record| {
            record.status = match failure {
                None => CommandStatus::Succeeded,
                Some(_) => CommandStatus::Failed,
            };
            record.error = failure.or(saved.err()).or(seen.err());
            record.outcomes = outcomes;
            record.after = after;
            record.finished_at = Some(Time::now());
        });
    }

    /// Why processes will end, told to the table before they do.
    fn intent(&self) -> Option<Intent> {
        match self.task {
            Task::Plain(Action::Restart) | Task::Env(_) => {
                Some(Intent::Restart(RestartCause::Manual))
            }
            Task::Plain(Action::Reload) => Some(Intent::Restart(RestartCause::Reload)),
            Task::Plain(Action::Stop | Action::Delete) | Task::Scale(_) => Some(Intent::Stop),
            _ => None,
        }
    }

    fn instances(&self, ids: &[u32]) -> Vec<Process> {
        let mut all = self.home.processes(|_| Default::default());
        all.retain(|process| process.instance.name == self.app && ids.contains(&process.pm_id));
        all
    }

    /// One instance after the other, so that a cluster is never down as a whole.
    async fn each(&self, ids: &[u32]) -> Vec<InstanceOutcome> {
        let mut outcomes = Vec::with_capacity(ids.len());
        for &pm_id in ids {
            let error = match self.goes_on() {
                Ok(()) => self.act(pm_id).await.err(),
                stopped => stopped.err(),
            };
            outcomes.push(InstanceOutcome { pm_id, error });
        }
        outcomes
    }

    /// Nothing more is begun when the exporter stops, which then says how far it came.
    fn goes_on(&self) -> Result<(), String> {
        match self.shutdown.drain.is_cancelled() {
            true => Err("not done: the exporter was stopped".to_owned()),
            false => Ok(()),
        }
    }

    async fn act(&self, pm_id: u32) -> Result<(), String> {
        let action = match &self.task {
            Task::Plain(action) => *action,
            Task::Env(variables) => {
                return self.call("restartProcessId", json!({"id": pm_id, "env": variables})).await;
            }
            Task::Signal(signal) => {
                let message = json!({"process_id": pm_id, "signal": signal});
                return self.call("sendSignalToProcessId", message).await;
            }
            Task::Trigger { action, params } => {
                let reply = self.home.trigger(pm_id, action, params.as_deref(), TRIGGER_WITHIN);
                let reply = reply.await.map_err(|error| match error {
                    CallError::Timeout(within) => {
                        format!(
                            "the application has not returned from {action:?} within {within:?}"
                        )
                    }
                    other => other.to_string(),
                })?;
                self.known.record.send_modify(|record| record.reply = Some(reply));
                return Ok(());
            }
            // Done as a whole.
            Task::Scale(_) => return Ok(()),
        };
        let (method, argument) = match action {
            Action::Start => {
                let running = self.instances(&[pm_id]);
                if running
                    .iter()
                    .any(|process| process.status.has_process() && process.pid.is_some())
                {
                    // What is wanted is so already; PM2 would call it an error.
                    return Ok(());
                }
                ("startProcessId", json!(pm_id))
            }
            Action::Stop => ("stopProcessId", json!(pm_id)),
            Action::Reload => ("reloadProcessId", json!({"id": pm_id})),
            Action::Delete => ("deleteProcessId", json!(pm_id)),
            Action::Reset => ("resetMetaProcessId", json!(pm_id)),
            Action::Flush => return self.flush(),
            _ => ("restartProcessId", json!({"id": pm_id})),
        };
        self.call(method, argument).await
    }

    async fn call(&self, method: &str, argument: Value) -> Result<(), String> {
        let called = self.home.call(method, argument, INSTANCE_WITHIN).await;
        called.map_err(|error| error.to_string())
    }

    /// PM2 keeps its files open for appending, so cutting them is enough.
    fn flush(&self) -> Result<(), String> {
        for file in self.home.table(|table| table.log_files(&self.app)) {
            match named::write(Path::new(&*file.path)).and_then(|file| file.set_len(0)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(format!("{}: {error}", file.path));
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn scale(&self, ids: &[u32], count: u32) -> Vec<InstanceOutcome> {
        let Some(&first) = ids.first() else { return Vec::new() };
        let fork = self.instances(&[first]).iter().any(|process| process.exec_mode != "cluster");
        if fork {
            let error = Some(
                "only an app in cluster mode can be scaled; this runs in fork mode".to_owned(),
            );
            return vec![InstanceOutcome { pm_id: first, error }];
        }
        let count = count as usize;
        let mut outcomes = Vec::new();
        for _ in ids.len()..count {
            let error = match self.goes_on() {
                Ok(()) => self.call("duplicateProcessId", json!(first)).await.err(),
                stopped => stopped.err(),
            };
            outcomes.push(InstanceOutcome { pm_id: first, error });
        }
        for &pm_id in ids.iter().skip(count).rev() {
            let error = match self.goes_on() {
                Ok(()) => self.call("deleteProcessId", json!(pm_id)).await.err(),
                stopped => stopped.err(),
            };
            outcomes.push(InstanceOutcome { pm_id, error });
        }
        if outcomes.is_empty() {
            outcomes.push(InstanceOutcome { pm_id: first, error: None });
        }
        outcomes
    }

    async fn save_list(&self) -> Result<(), String> {
        let deleted = matches!(self.task, Task::Plain(Action::Delete));
        let gone: &[&str] = if deleted { &[self.app.as_str()] } else { &[] };
        self.home.save(gone).await.map_err(|error| error.to_string())
    }
}
