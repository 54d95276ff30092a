//! `pm2-exporter check`: what is wrong with this machine's PM2, in words.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use wire::{HostReadings, Pm2State, Process, Status, Time};

use crate::access::TokenEntry;
use crate::pm2::dump::{Counts, Drift};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Will hurt one day.
    Warning,
    /// Hurts now.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad.
    pub level: Level,
    /// What was looked at, for programs: `daemon`, `dump`.
    pub what: &'static str,
    /// What was found, and what to do.
    pub message: String,
}

impl Finding {
    /// See the fields.
    pub fn new(level: Level, what: &'static str, message: impl Into<String>) -> Self {
        Self { level, what, message: message.into() }
    }

    /// Says which PM2 it is of, where there are several.
    #[must_use]
    pub fn of_home(self, home: Option<&str>) -> Self {
        match home {
            Some(home) => Self { message: format!("{home}: {}", self.message), ..self },
            None => self,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Problem => "problem",
        };
        write!(f, "{level:<8} {:<10} {}", self.what, self.message)
    }
}

/// Everything that can be said of a home; `drift` is what its saved list has of what is watched,
/// where there is one.
pub fn findings(
    home: &Path,
    state: &Pm2State,
    processes: &[Process],
    drift: Option<&Drift>,
    host: &HostReadings,
) -> Vec<Finding> {
    let mut all = Vec::new();
    daemon(home, state, &mut all);
    if state.up {
        apps(processes, &mut all);
        saved(drift, &mut all);
    }
    all.extend(disk(host));
    all
}

fn daemon(home: &Path, state: &Pm2State, all: &mut Vec<Finding>) {
    if !state.up {
        let why = state.error.clone().unwrap_or_default();
        all.push(Finding::new(Level::Problem, "daemon", why));
        return;
    }
    let version = state.version.clone().unwrap_or_default();
    let home = home.display();
    all.push(Finding::new(Level::Ok, "daemon", format!("PM2 {version} in {home} answers")));
    match installed_version() {
        Some(installed) if installed != version => all.push(Finding::new(
            Level::Warning,
            "version",
            format!("the pm2 command is {installed}, the daemon {version}: run 'pm2 update'"),
        )),
        Some(_) => all.push(Finding::new(Level::Ok, "version", "command and daemon are the same")),
        None => {}
    }
}

fn apps(processes: &[Process], all: &mut Vec<Finding>) {
    let before = all.len();
    for process in processes {
        let name = &process.instance;
        if process.online_without_pid {
            let message = format!("{name} is called online, and there is no such process");
            all.push(Finding::new(Level::Problem, "process", message));
        } else if process.status == Status::Errored {
            let message = format!("{name} is errored: PM2 gave up restarting it");
            all.push(Finding::new(Level::Problem, "process", message));
        }
    }
    if all.len() == before {
        let message = format!("{} processes, none of them errored", processes.len());
        all.push(Finding::new(Level::Ok, "process", message));
    }
}

fn saved(drift: Option<&Drift>, all: &mut Vec<Finding>) {
    let list = |counts: &Counts| {
        let words = counts.iter().map(|(name, count)| match count {
            1 => name.clone(),
            _ => format!("{name} ({count} processes)"),
        });
        words.collect::<Vec<_>>().join(", ")
    };
    let Some(drift) = drift else {
        let message = "nothing was ever saved: a reboot starts no app; run 'pm2 save'";
        all.push(Finding::new(Level::Warning, "dump", message));
        return;
    };
    if !drift.missing.is_empty() {
        let message = format!("a reboot would lose {}: run 'pm2 save'", list(&drift.missing));
        all.push(Finding::new(Level::Warning, "dump", message));
    }
    if !drift.extra.is_empty() {
        let message = format!("a reboot would start {}, which PM2 has not now", list(&drift.extra));
        all.push(Finding::new(Level::Warning, "dump", message));
    }
    if *drift == Drift::default() {
        all.push(Finding::new(Level::Ok, "dump", "what is saved is what runs"));
    }
}

/// Tokens that have ended, or soon will.
pub fn tokens(tokens: &[TokenEntry], now: Time) -> Vec<Finding> {
    const SOON: i64 = 14 * 86_400_000;
    let ends = tokens.iter().filter_map(|token| Some((&token.name, token.expires?)));
    ends.filter(|(_, expires)| expires.millis_since(now) < SOON)
        .map(|(name, expires)| {
            let verb = if expires <= now { "expired" } else { "expires" };
            Finding::new(Level::Warning, "token", format!("token {name:?} {verb} at {expires}"))
        })
        .collect()
}

/// Whether PM2 is started at boot.
pub fn startup() -> Finding {
    let units = systemd_units();
    match &units[..] {
        [] => Finding::new(
            Level::Warning,
            "startup",
            "no systemd unit starts PM2 at boot: run 'pm2 startup' and do what it says",
        ),
        units => Finding::new(Level::Ok, "startup", format!("{} starts at boot", units.join(", "))),
    }
}

/// Units that start PM2, as `pm2 startup` names them (`pm2-app.service`).
fn systemd_units() -> Vec<String> {
    let folders = ["/etc/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system"];
    let mut units: Vec<String> = folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flat_map(|entries| entries.flatten())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("pm2-") && name.ends_with(".service"))
        .filter(|name| !name.starts_with("pm2-exporter") && !name.starts_with("pm2-poller"))
        .collect();
    units.sort();
    units.dedup();
    units
}

fn disk(host: &HostReadings) -> Option<Finding> {
    let (free, size) = (host.filesystem_avail_bytes?, host.filesystem_size_bytes?);
    let percent = free as f64 / size.max(1) as f64 * 100.0;
    let gib = free as f64 / (1u64 << 30) as f64;
    let message = format!("{gib:.1} GiB ({percent:.0} %) free where PM2 keeps its logs");
    let level = match percent {
        percent if percent < 5.0 => Level::Problem,
        percent if percent < 10.0 => Level::Warning,
        _ => Level::Ok,
    };
    Some(Finding::new(level, "disk", message))
}

/// Version of the `pm2` on the PATH, from its package and without running it.
fn installed_version() -> Option<String> {
    let path = std::env::var_os("PATH")?;
    let command = std::env::split_paths(&path)
        .map(|folder| folder.join("pm2"))
        .find_map(|candidate| std::fs::canonicalize(candidate).ok())?;
    version_beside(&command)
}

fn version_beside(command: &Path) -> Option<String> {
    // `…/pm2/bin/pm2`
    let package: PathBuf = command.parent()?.parent()?.join("package.json");
    let package: serde_json::Value = serde_json::from_slice(&std::fs::read(package).ok()?).ok()?;
    (package.get("name")?.as_str()? == "pm2").then_some(())?;
    Some(package.get("version")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (Pm2State, Vec<Process>, HostReadings) {
        let state: wire::State =
            serde_json::from_str(include_str!("../../wire/golden/state.json")).unwrap();
        (state.pm2, state.processes, state.host.unwrap())
    }

    fn told(findings: &[Finding], what: &str) -> Vec<(Level, String)> {
        let of = findings.iter().filter(|finding| finding.what == what);
        of.map(|finding| (finding.level, finding.message.clone())).collect()
    }

    #[test]
    fn what_hurts_is_a_problem_and_what_will_is_a_warning() {
        let (pm2, processes, mut host) = state();
        host.filesystem_avail_bytes = host.filesystem_size_bytes.map(|size| size / 100);
        let home = Path::new("/home/app/.pm2");
        let found = findings(home, &pm2, &processes, None, &host);
        assert_eq!(told(&found, "daemon")[0].0, Level::Ok);
        let process = told(&found, "process");
        assert_eq!(process.len(), 1);
        assert!(process[0].1.contains("bad spawn"), "{process:?}");
        assert!(told(&found, "dump")[0].1.contains("pm2 save"));
        assert_eq!(told(&found, "disk")[0].0, Level::Problem);

        let drift = Drift {
            missing: [("bad spawn".to_owned(), 2)].into(),
            extra: [("old".to_owned(), 1)].into(),
        };
        let dump = told(&findings(home, &pm2, &processes, Some(&drift), &host), "dump");
        assert!(
            dump[0].1.contains("lose bad spawn (2 processes)") && dump[1].1.contains("start old"),
            "{dump:?}"
        );
    }

    #[test]
    fn a_daemon_that_is_not_there_is_the_problem() {
        let (mut pm2, ..) = state();
        (pm2.up, pm2.error) = (false, Some("no PM2 daemon".to_owned()));
        let found = findings(Path::new("/nonexistent"), &pm2, &[], None, &HostReadings::default());
        assert_eq!(told(&found, "daemon"), [(Level::Problem, "no PM2 daemon".to_owned())]);
        assert!(told(&found, "dump").is_empty());
    }

    #[test]
    fn the_commands_version_is_read_from_its_package() {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::fs::write(folder.path().join("package.json"), r#"{"name":"pm2","version":"5.4.3"}"#)
            .unwrap();
        assert_eq!(version_beside(&bin.join("pm2")).as_deref(), Some("5.4.3"));
        std::fs::write(folder.path().join("package.json"), r#"{"name":"x","version":"1"}"#)
            .unwrap();
        assert_eq!(version_beside(&bin.join("pm2")), None);
    }
}
