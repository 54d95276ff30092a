//! From PM2's JSON to what this program keeps: an allow-list. Nothing that is not named here
//! is ever read, so that no environment value can travel on.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use wire::{AppName, SmolStr, Status, Time};

use super::custom::{self, NodeMetrics};
use super::lenient::{FirstText, Lenient, OneOrMany, Text};

/// A process as PM2 lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// PM2's number.
    pub pm_id: u32,
    /// App name.
    pub name: AppName,
    /// Namespace.
    pub namespace: SmolStr,
    /// The operating system's number, where it runs.
    pub pid: Option<u32>,
    /// PM2's view.
    pub status: Status,
    /// Last start.
    pub started_at: Option<Time>,
    /// PM2's own restart counter.
    pub restart_time: u64,
    /// `fork` or `cluster`.
    pub exec_mode: &'static str,
    /// File name of the interpreter.
    pub interpreter: Box<str>,
    /// Version of Node.js.
    pub node_version: Box<str>,
    /// Version of the application.
    pub version: Box<str>,
    /// Where PM2 keeps the process number.
    pub pid_file: Box<str>,
    /// Where PM2 writes what it prints; empty or `/dev/null` where it does not.
    pub out_log: Box<str>,
    /// Where PM2 writes its errors, likewise.
    pub err_log: Box<str>,
    /// Whether it is a module of PM2's own.
    pub is_module: bool,
    /// Whether it is our own placeholder page.
    pub is_placeholder: bool,
    /// Exit code of the last end.
    pub exit_code: Option<i32>,
    /// Whether PM2 starts it again when it ends by itself.
    pub autorestart: bool,
    /// It ended with a code after which PM2 is to leave it.
    pub ended_as_told: bool,
    /// What PM2 itself measured and keeps, for other exporters' pages.
    pub kept: Kept,
    /// What Node.js and the application report.
    pub metrics: NodeMetrics,
}

/// Numbers that PM2 keeps of a process, in its own units.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// CPU in percent of one core.
    pub cpu_percent: Option<f64>,
    /// Resident memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Delay before the last restart, in milliseconds.
    pub prev_restart_delay: Option<f64>,
    /// Instances that were asked for.
    pub instances: u32,
}

/// Reads the reply of `getMonitorData`. An entry that makes no sense is left out and counted,
/// so that one odd application does not hide the others.
///
/// # Errors
/// The reply is not a list.
pub fn list(json: &[u8]) -> Result<(Vec<Listed>, usize), serde_json::Error> {
    #[derive(Deserialize)]
    struct Reply<'a> {
        #[serde(borrow)]
        args: (Vec<&'a RawValue>,),
    }
    let reply: Reply<'_> = serde_json::from_slice(json)?;
    let entries = reply.args.0;
    let total = entries.len();
    let listed: Vec<Listed> = entries
        .into_iter()
        .filter_map(|raw| serde_json::from_str::<RawListed<'_>>(raw.get()).ok())
        .filter_map(RawListed::listed)
        .collect();
    let odd = total - listed.len();
    Ok((listed, odd))
}

#[derive(Deserialize)]
struct RawListed<'a> {
    #[serde(default)]
    pid: Lenient,
    pm_id: Lenient,
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(default)]
    monit: Monit,
    #[serde(borrow)]
    pm2_env: RawEnv<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Monit {
    cpu: Lenient,
    memory: Lenient,
}

impl RawListed<'_> {
    fn listed(self) -> Option<Listed> {
        let mut listed =
            self.pm2_env.listed(&self.name.0, self.pm_id.whole()?, self.pid.whole())?;
        listed.kept.cpu_percent = self.monit.cpu.number();
        listed.kept.memory_bytes = self.monit.memory.number().map(|bytes| bytes as u64);
        Some(listed)
    }
}

/// The part of `pm2_env` that may be read.
#[derive(Deserialize, Default)]
#[serde(default)]
struct RawEnv<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    pm_id: Lenient,
    #[serde(borrow)]
    namespace: Text<'a>,
    #[serde(borrow)]
    status: Text<'a>,
    pm_uptime: Lenient,
    restart_time: Lenient,
    #[serde(borrow)]
    exec_mode: Text<'a>,
    #[serde(borrow)]
    exec_interpreter: Text<'a>,
    #[serde(borrow)]
    node_version: Text<'a>,
    #[serde(borrow)]
    version: Text<'a>,
    #[serde(borrow)]
    pm_exec_path: Text<'a>,
    #[serde(borrow)]
    pm_pid_path: Text<'a>,
    #[serde(borrow)]
    pm_out_log_path: Text<'a>,
    #[serde(borrow)]
    pm_err_log_path: Text<'a>,
    /// Read for one word only: whether the first argument is `placeholder`.
    #[serde(borrow)]
    args: FirstText<'a>,
    exit_code: Lenient,
    autorestart: Lenient,
    stop_exit_codes: OneOrMany,
    pmx_module: Lenient,
    instances: Lenient,
    prev_restart_delay: Lenient,
    axm_monitor: BTreeMap<String, custom::RawMetric>,
}

impl RawEnv<'_> {
    fn listed(self, name: &str, pm_id: u32, pid: Option<u32>) -> Option<Listed> {
        let status = Status::from_pm2(&self.status.0);
        let own = file_name(&self.pm_exec_path.0) == "pm2-exporter";
        let started_at = self.pm_uptime.millis().filter(|millis| *millis > 0);
        let exit_code = self.exit_code.millis();
        Some(Listed {
            pm_id,
            name: name.parse().ok()?,
            namespace: match &*self.namespace.0 {
                "" => "default".into(),
                text => printable(text, 128).into(),
            },
            pid: pid.filter(|pid| *pid > 0),
            status,
            started_at: started_at.map(Time::from_millis),
            restart_time: self.restart_time.millis().unwrap_or(0).max(0) as u64,
            exec_mode: if self.exec_mode.0.contains("cluster") { "cluster" } else { "fork" },
            interpreter: printable(file_name(&self.exec_interpreter.0), 64),
            node_version: printable(&self.node_version.0, 32),
            // PM2's word for none.
            version: match &*self.version.0 {
                "N/A" => "".into(),
                version => printable(version, 64),
            },
            pid_file: self.pm_pid_path.0.as_ref().into(),
            out_log: self.pm_out_log_path.0.as_ref().into(),
            err_log: self.pm_err_log_path.0.as_ref().into(),
            is_module: matches!(self.pmx_module, Lenient::Truth(true)),
            is_placeholder: own && self.args.0.as_deref() == Some("placeholder"),
            exit_code: exit_code.and_then(|code| i32::try_from(code).ok()),
            autorestart: match &self.autorestart {
                Lenient::Truth(truth) => *truth,
                Lenient::Text(text) => text != "false",
                _ => true,
            },
            ended_as_told: exit_code.is_some_and(|code| self.stop_exit_codes.holds(code)),
            kept: Kept {
                instances: self.instances.whole().unwrap_or(1),
                prev_restart_delay: self.prev_restart_delay.number(),
                ..Kept::default()
            },
            metrics: custom::read(self.axm_monitor),
        })
    }
}

/// A `process:event` from the bus.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessEvent {
    /// PM2's word: `online`, `exit`, `restart overlimit`, …
    pub event: Box<str>,
    /// Whether somebody asked for it.
    pub manually: bool,
    /// When.
    pub at: Time,
    /// The process is the outgoing worker of a cluster reload, not the one of this number.
    pub outgoing: bool,
    /// The process at that moment; its pid is not told.
    pub process: Listed,
}

/// Reads a `process:event`. `None` when it is of a process that makes no sense.
///
/// # Errors
/// It is not the JSON that PM2 sends.
pub fn process_event(json: &[u8]) -> Result<Option<ProcessEvent>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Raw<'a> {
        #[serde(borrow, default)]
        event: Text<'a>,
        #[serde(default)]
        manually: Lenient,
        #[serde(default)]
        at: Lenient,
        #[serde(borrow)]
        process: RawEnv<'a>,
    }
    let raw: Raw<'_> = serde_json::from_slice(json)?;
    let (pm_id, outgoing) = match &raw.process.pm_id {
        Lenient::Text(text) => (text.strip_prefix("_old_").and_then(|id| id.parse().ok()), true),
        other => (other.whole(), false),
    };
    let Some(pm_id) = pm_id else { return Ok(None) };
    let name = raw.process.name.0.clone();
    Ok(raw.process.listed(&name, pm_id, None).map(|process| ProcessEvent {
        event: printable(&raw.event.0, 64),
        manually: matches!(raw.manually, Lenient::Truth(true)),
        at: raw.at.millis().map_or_else(Time::now, Time::from_millis),
        outgoing,
        process,
    }))
}

/// A `process:exception` from the bus, without its source context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// PM2's number.
    pub pm_id: u32,
    /// When.
    pub at: Time,
    /// On one line, bounded.
    pub message: Box<str>,
    /// Stack, bounded.
    pub stack: Box<str>,
}

/// Reads a `process:exception`.
///
/// # Errors
/// It is not the JSON that PM2 sends.
pub fn exception(json: &[u8]) -> Result<Option<Exception>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Raw<'a> {
        #[serde(default)]
        at: Lenient,
        #[serde(borrow, default)]
        data: Data<'a>,
        process: Whose,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Data<'a> {
        #[serde(borrow)]
        message: Text<'a>,
        #[serde(borrow)]
        stack: Text<'a>,
    }
    #[derive(Deserialize)]
    struct Whose {
        pm_id: Lenient,
    }
    let raw: Raw<'_> = serde_json::from_slice(json)?;
    Ok(raw.process.pm_id.whole().map(|pm_id| Exception {
        pm_id,
        at: raw.at.millis().map_or_else(Time::now, Time::from_millis),
        message: on_one_line(&raw.data.message.0, 500),
        stack: raw
            .data
            .stack
            .0
            .chars()
            .filter(|letter| *letter == '\n' || !letter.is_control())
            .take(4000)
            .collect::<String>()
            .into(),
    }))
}

/// An `axm:reply` from the bus: what a custom action returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// PM2's number.
    pub pm_id: u32,
    /// The action.
    pub action: Box<str>,
    /// What it returned, as JSON.
    pub json: Box<str>,
}

/// Reads an `axm:reply`.
pub fn reply(json: &[u8]) -> Option<Reply> {
    #[derive(Deserialize)]
    struct Raw<'a> {
        #[serde(borrow)]
        data: Data<'a>,
        process: Whose,
    }
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(borrow)]
        action_name: Text<'a>,
        #[serde(borrow, rename = "return")]
        returned: &'a RawValue,
    }
    #[derive(Deserialize)]
    struct Whose {
        pm_id: Lenient,
    }
    let raw: Raw<'_> = serde_json::from_slice(json).ok()?;
    let returned = raw.data.returned.get();
    let json = if returned.len() > MAX_REPLY { "\"(too long)\"" } else { returned };
    let action = raw.data.action_name.0.as_ref().into();
    Some(Reply { pm_id: raw.process.pm_id.whole()?, action, json: json.into() })
}

/// Longest reply of a custom action that is passed on.
const MAX_REPLY: usize = 64 * 1024;

/// What the daemon's own log line (`log:PM2`) tells and no event does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DaemonLine {
    /// A process ended, with this code and signal. PM2 writes SIGINT where there was none.
    Exited {
        /// PM2's number.
        pm_id: u32,
        /// Exit code.
        code: i32,
        /// Signal.
        signal: Box<str>,
    },
    /// A process is restarted for its use of memory.
    OverMemory {
        /// PM2's number.
        pm_id: u32,
    },
    /// The list may have changed in a way that no event tells.
    MayChange,
}

/// Reads a `log:PM2` message.
pub fn daemon_line(json: &[u8]) -> Option<DaemonLine> {
    #[derive(Deserialize)]
    struct Raw<'a> {
        #[serde(borrow)]
        data: Text<'a>,
    }
    let raw: Raw<'_> = serde_json::from_slice(json).ok()?;
    let line = raw.data.0.trim_end();
    if let Some((who, how)) = line.rsplit_once("] exited with code [") {
        let pm_id = who.rsplit_once(':')?.1.parse().ok()?;
        let (code, signal) = how.split_once("] via signal [")?;
        let signal = printable(signal.trim_end_matches(']'), 32);
        return Some(DaemonLine::Exited { pm_id, code: code.parse().ok()?, signal });
    }
    if line.contains("max-memory-restart") || line.contains("max_memory_restart") {
        let rest = line.split_once("Process ")?.1;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        return Some(DaemonLine::OverMemory { pm_id: rest[..digits].parse().ok()? });
    }
    let hints = ["Stopping app:", "does not have a pid", "id unknown", "deleted"];
    hints.iter().any(|hint| line.contains(hint)).then_some(DaemonLine::MayChange)
}

/// Whose log a passed `log:out` or `log:err` body of `length` bytes is, and how many bytes were
/// logged, from the ends of the body alone. A line break counts as one byte, other letters
/// that JSON escapes by their escaped length.
pub fn logged(head: &[u8], tail: &[u8], length: usize) -> Option<(u32, u64)> {
    const WHOSE: &[u8] = b"\"process\":{\"pm_id\":";
    const DATA: &[u8] = b"\"data\":\"";
    // Fork mode tells the process first, cluster mode last. What an application writes stands
    // escaped in `data`, where neither mark's quotes can occur.
    let find = |bytes: &[u8], mark: &[u8]| {
        bytes.windows(mark.len()).position(|window| window == mark).map(|at| at + mark.len())
    };
    let ends = [head, tail].concat();
    let digits = &ends[find(&ends, WHOSE)?..];
    let digits = &digits[..digits.iter().take_while(|byte| byte.is_ascii_digit()).count()];
    let pm_id = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let before = find(head, DATA)?;
    let after = if find(&ends, WHOSE)? < before {
        // `"}` ends the body.
        2
    } else {
        let at = find(&ends, WHOSE)?;
        ends.len() - (at - WHOSE.len()) + 2
    };
    let data = length.checked_sub(before + after)?;
    let breaks = ends.windows(2).filter(|pair| pair == b"\\n").count();
    Some((pm_id, data.saturating_sub(breaks) as u64))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// What stood on lines of its own stays apart.
fn on_one_line(text: &str, most: usize) -> Box<str> {
    let words = text.split(char::is_control).map(str::trim).filter(|line| !line.is_empty());
    printable(&words.collect::<Vec<_>>().join(" "), most)
}

fn printable(text: &str, most: usize) -> Box<str> {
    text.chars().filter(|letter| !letter.is_control()).take(most).collect::<String>().into()
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
