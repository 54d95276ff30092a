//! Starting and deleting processes natively, for slots. Nothing that the daemon's records hold
//! beyond the few fields here is kept: they contain whole environments.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::rpc::{CallError, Rpc};

/// How long the daemon may take for its list, and to start something.
const WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to end something: it waits for a graceful end first.
pub const END_WITHIN: Duration = Duration::from_secs(75);

/// A process as slots need to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// PM2's number.
    pub pm_id: u32,
    /// Its name.
    pub name: String,
    /// The operating system's number; 0 where it does not run.
    pub pid: u32,
    /// PM2's word: `online`, `stopped`, `errored`, …
    pub status: String,
    /// How often PM2 started it again.
    pub restarts: u64,
    /// The file that it runs.
    pub script: String,
    /// Its working folder.
    pub cwd: String,
    /// Its first argument.
    pub first_arg: String,
    /// How it last ended.
    pub exit_code: Option<i64>,
    /// It is a PM2 module.
    pub is_module: bool,
    /// What its settings were digested to when `slots up` started it; empty where that did not.
    pub settings: String,
}

/// The variable that holds [`Running::settings`].
pub const SETTINGS: &str = "PM2_EXPORTER_ADMIN";

/// PM2's list with the bytes it was read from, for saving it.
pub struct Listing {
    /// The reply as it came; holds environments.
    pub raw: Vec<u8>,
    /// What may be used of it.
    pub processes: Vec<Running>,
}

impl Listing {
    /// The processes of one name.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Running> + 'a {
        self.processes.iter().filter(move |running| running.name == name)
    }
}

/// Asks for the list.
///
/// # Errors
/// See [`CallError`].
pub async fn list(rpc: &Rpc) -> Result<Listing, CallError> {
    let raw = rpc.call("getMonitorData", &json!({}), WITHIN).await?;
    let malformed = |error: serde_json::Error| {
        CallError::Malformed(format!("line {}, column {}", error.line(), error.column()))
    };
    #[derive(Deserialize)]
    struct Reply {
        args: (Vec<Entry>,),
    }
    let reply: Reply = serde_json::from_slice(&raw).map_err(malformed)?;
    let processes = reply.args.0.into_iter().filter_map(Entry::running).collect();
    Ok(Listing { raw, processes })
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    pid: Value,
    pm_id: Value,
    #[serde(default)]
    name: Value,
    #[serde(default)]
    pm2_env: Env,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Env {
    status: Value,
    restart_time: Value,
    pm_exec_path: Value,
    pm_cwd: Value,
    args: Value,
    exit_code: Value,
    pmx_module: Value,
    /// [`SETTINGS`].
    #[serde(rename = "PM2_EXPORTER_ADMIN")]
    settings: Value,
}

impl Entry {
    fn running(self) -> Option<Running> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let first_arg = match &self.pm2_env.args {
            Value::Array(args) => args.first().map(text).unwrap_or_default(),
            other => text(other),
        };
        Some(Running {
            pm_id: u32::try_from(self.pm_id.as_u64()?).ok()?,
            name: self.name.as_str()?.to_owned(),
            pid: self.pid.as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
            status: text(&self.pm2_env.status),
            restarts: self.pm2_env.restart_time.as_u64().unwrap_or(0),
            script: text(&self.pm2_env.pm_exec_path),
            cwd: text(&self.pm2_env.pm_cwd),
            first_arg,
            exit_code: self.pm2_env.exit_code.as_i64(),
            is_module: self.pm2_env.pmx_module.as_bool().unwrap_or(false),
            settings: text(&self.pm2_env.settings),
        })
    }
}

/// Starts a new process from a flat record. Gives PM2's number of it, as far as it tells.
///
/// # Errors
/// See [`CallError`].
pub async fn start(rpc: &Rpc, record: &Value) -> Result<Option<u32>, CallError> {
    let reply = rpc.call("prepare", record, WITHIN).await?;
    let reply: Value = serde_json::from_slice(&reply).unwrap_or_default();
    let pm_id = reply.pointer("/args/0/0/pm2_env/pm_id").and_then(Value::as_u64);
    Ok(pm_id.and_then(|pm_id| u32::try_from(pm_id).ok()))
}

/// Ends a process and takes it off the list. One that is gone already is as good.
///
/// # Errors
/// See [`CallError`].
pub async fn delete(rpc: &Rpc, pm_id: u32) -> Result<(), CallError> {
    match rpc.call("deleteProcessId", &json!(pm_id), END_WITHIN).await.map(drop) {
        Err(CallError::Refused(message)) if message.contains("unknown") => Ok(()),
        other => other,
    }
}

/// Stops a process and leaves it on the list.
///
/// # Errors
/// See [`CallError`].
pub async fn stop(rpc: &Rpc, pm_id: u32) -> Result<(), CallError> {
    rpc.call("stopProcessId", &json!(pm_id), END_WITHIN).await.map(drop)
}
