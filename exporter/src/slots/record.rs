//! The record that PM2 starts a slot's process from.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::config::Settings;
use super::env::Env;
use super::start::Start;
use super::store::Store;

/// What is to run under a PM2 name.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// PM2's name of it: `slot-a`.
    pub name: String,
    /// The program.
    pub start: Start,
    /// Its whole environment.
    pub env: Env,
    /// How often PM2 starts it again before it gives up.
    pub max_restarts: u32,
}

/// Restarts that PM2 gives a deployed application, and a page of ours.
pub const RESTARTS_DEPLOYED: u32 = 3;
/// See [`RESTARTS_DEPLOYED`].
pub const RESTARTS_PLACEHOLDER: u32 = 10;

const KILL_RETRY_MS: u64 = 15;

/// The file name, without an interpreter's folder: PM2 is given a whole path, so that its
/// daemon's own PATH does not matter.
fn interpreter(start: &Start, node: &Path) -> String {
    match start.node {
        Some(_) => node.display().to_string(),
        None => "none".to_owned(),
    }
}

impl Wanted {
    /// The environment with what stood before the start command.
    fn whole_env(&self) -> Env {
        let mut env = self.env.clone();
        for (name, value) in &self.start.env {
            env.entry(name.clone()).or_insert_with(|| value.clone());
        }
        env
    }

    /// The flat record that `prepare` takes.
    pub fn record(&self, settings: &Settings, store: &Store, home: &Path, node: &Path) -> Value {
        let env = self.whole_env();
        let mut record = Map::new();
        // PM2 puts the environment into the record itself; it is written there too, so that
        // what is saved and restored is the same. Settings come later and win.
        for (name, value) in &env {
            record.insert(name.clone(), json!(value));
        }
        let settings = json!({
            "name": self.name,
            "namespace": "default",
            "pm_exec_path": self.start.script,
            "exec_interpreter": interpreter(&self.start, node),
            "exec_mode": "fork_mode",
            "instances": 1,
            "instance_var": "NODE_APP_INSTANCE",
            "pm_cwd": self.start.cwd,
            "args": self.start.args,
            "node_args": self.start.node.clone().unwrap_or_default(),
            "autorestart": true,
            "max_restarts": self.max_restarts,
            "min_uptime": 1000,
            "kill_timeout": settings.kill_timeout.as_millis() as u64,
            // How often PM2 looks whether it has ended: its own 100 ms are most of a switch's gap.
            "kill_retry_time": KILL_RETRY_MS,
            "treekill": true,
            "merge_logs": true,
            "vizion": false,
            "watch": false,
            "pmx": true,
            "automation": true,
            "windowsHide": true,
            "pm_out_log_path": store.process_log(&self.name, "out"),
            "pm_err_log_path": store.process_log(&self.name, "error"),
            "pm_pid_path": home.join("pids").join(format!("{}.pid", self.name)),
            "env": env,
        });
        if let Value::Object(settings) = settings {
            record.extend(settings);
        }
        Value::Object(record)
    }

    /// The same for `ecosystem.config.js`.
    pub fn ecosystem(&self, settings: &Settings, store: &Store, node: &Path) -> Value {
        json!({
            "name": self.name,
            "script": self.start.script,
            "interpreter": interpreter(&self.start, node),
            "node_args": self.start.node.clone().unwrap_or_default(),
            "args": self.start.args,
            "cwd": self.start.cwd,
            "instances": 1,
            "exec_mode": "fork",
            "autorestart": true,
            "max_restarts": self.max_restarts,
            "kill_timeout": settings.kill_timeout.as_millis() as u64,
            "kill_retry_time": KILL_RETRY_MS,
            "merge_logs": true,
            "vizion": false,
            "watch": false,
            "out_file": store.process_log(&self.name, "out"),
            "error_file": store.process_log(&self.name, "error"),
            "env": self.whole_env(),
        })
    }
}
