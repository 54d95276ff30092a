//! `[slots]` of the configuration.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use service::config::Reader;
use wire::{CommandLine, SlotId};

use super::SlotPlace;
use super::env::name_is_allowed;
use super::words;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The settings, checked.
#[derive(Clone)]
pub struct Settings {
    /// The slots.
    pub places: Vec<SlotPlace>,
    /// `[slots]` stands in the configuration; if not, only those slots are shown that PM2 runs.
    pub configured: bool,
    /// Where releases, logs and states are; found by default where unset.
    pub root: Option<PathBuf>,
    /// `file://` repositories may be deployed.
    pub allow_file_repositories: bool,
    /// Hosts that may be fetched from; empty: any.
    pub allowed_hosts: Vec<String>,
    /// Workspace defaults of the environment.
    pub env: Vec<(String, String)>,
    /// Variables of the exporter's own environment that applications get too.
    pub inherit: Vec<String>,
    /// Releases that are kept a slot, the running one included.
    pub keep: usize,
    /// Clones, installations and builds at a time.
    pub builds: usize,
    /// What cloning, installing and building may take together, unless a deployment says.
    pub timeout: Duration,
    /// How often an application is asked whether it is well.
    pub probe_attempts: u32,
    /// Between two of those.
    pub probe_interval: Duration,
    /// How long it must stay well after the switch.
    pub settle: Duration,
    /// How long a process may take to end after SIGTERM.
    pub kill_timeout: Duration,
    /// How long a change waits for a PM2 daemon that does not answer.
    pub daemon_wait: Duration,
    /// Bytes that one deployment's log may have.
    pub log_limit: u64,
    /// Bytes that one release may have.
    pub release_limit: u64,
    /// How the `pm2` command is called; `pm2` on the PATH unless set.
    pub pm2: Option<PathBuf>,
    /// Bytes after which a log is rotated; 0 turns rotation off.
    pub log_rotate_size: u64,
    /// Rotated logs that are kept.
    pub log_rotate_keep: usize,
    /// The workspace's admin server.
    pub admin: Admin,
}

/// `[slots.admin]`: the first of the workspace's processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Whether `slots up` starts one.
    pub enabled: bool,
    /// Its port.
    pub port: u16,
    /// What runs it, with its arguments; `pm2-poller` unless set.
    pub command: Option<Vec<String>>,
    /// Where it runs.
    pub cwd: Option<PathBuf>,
    /// Holds the token by which `pm2-poller` asks this exporter; of no use with `command`.
    pub token_file: Option<PathBuf>,
}

impl fmt::Debug for Settings {
    /// Without values of the environment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Settings")
            .field("places", &self.places)
            .field("root", &self.root)
            .field("env", &names)
            .finish_non_exhaustive()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            places: SlotPlace::defaults(),
            configured: false,
            root: None,
            allow_file_repositories: false,
            allowed_hosts: Vec::new(),
            env: Vec::new(),
            inherit: Vec::new(),
            keep: 5,
            builds: 2,
            timeout: MINUTE * 10,
            probe_attempts: 15,
            probe_interval: SECOND * 2,
            settle: SECOND,
            kill_timeout: Duration::from_millis(1600),
            daemon_wait: MINUTE,
            log_limit: 10 << 20,
            release_limit: 2 << 30,
            pm2: None,
            log_rotate_size: 10 << 20,
            log_rotate_keep: 5,
            admin: Admin { enabled: true, port: 9000, command: None, cwd: None, token_file: None },
        }
    }
}

impl Settings {
    /// The folder of releases, logs and states: as configured, or beside what else the
    /// exporter keeps, or in the user's home.
    pub fn root(&self, state_dir: Option<&Path>, home: Option<String>) -> PathBuf {
        let root = self.root.clone().or_else(|| state_dir.map(|folder| folder.join("slots")));
        let root = root.unwrap_or_else(|| match home {
            Some(home) => PathBuf::from(home).join(".local/state/pm2-exporter/slots"),
            None => PathBuf::from("/var/lib/pm2-exporter/slots"),
        });
        std::path::absolute(&root).unwrap_or(root)
    }

    /// Reads the table; the defaults where there is none.
    pub fn read(reader: &mut Reader) -> Self {
        reader.table("slots", |reader| Some(Self::table(reader))).unwrap_or_default()
    }

    fn table(reader: &mut Reader) -> Self {
        let default = Self::default();
        let root = reader.path("root");
        let allow_file_repositories = reader.truth("allow_file_repositories", false);
        let allowed_hosts = reader.list("allowed_hosts", |text| {
            let plain = |letter: char| letter.is_ascii_alphanumeric() || "-.".contains(letter);
            if text.is_empty() || !text.chars().all(plain) {
                return Err(format!("{text:?} is not a host name: letters, digits, '-', '.'"));
            }
            Ok(text.to_ascii_lowercase())
        });
        let env = reader.table("env", |reader| {
            let env = reader.rest();
            for (name, _) in &env {
                if let Err(message) = name_is_allowed(name) {
                    reader.mistake(name, message);
                }
            }
            Some(env)
        });
        let inherit =
            reader.list("inherit", |text| name_is_allowed(text).map(|()| text.to_owned()));
        let keep = number(reader, "keep", default.keep, 2, 100);
        let builds = number(reader, "builds", default.builds, 1, 64);
        let timeout = reader.duration("timeout", default.timeout, SECOND..=MINUTE * 120);
        let probe_attempts = number(reader, "probe_attempts", 15, 1, 1000) as u32;
        let probe_interval = reader.duration(
            "probe_interval",
            default.probe_interval,
            Duration::from_millis(50)..=MINUTE,
        );
        let settle = reader.duration("settle", default.settle, Duration::ZERO..=MINUTE * 10);
        let kill_timeout = reader.duration(
            "kill_timeout",
            default.kill_timeout,
            Duration::from_millis(100)..=MINUTE,
        );
        let daemon_wait = reader.duration("daemon_wait", default.daemon_wait, SECOND..=MINUTE * 60);
        let log_limit = size(reader, "log_limit", default.log_limit);
        let release_limit = size(reader, "release_limit", default.release_limit);
        let pm2 = reader.path("pm2");
        let log_rotate_size = size(reader, "log_rotate_size", default.log_rotate_size);
        let log_rotate_keep = number(reader, "log_rotate_keep", default.log_rotate_keep, 1, 100);
        let admin = reader.table("admin", |reader| Some(admin(reader))).unwrap_or(default.admin);
        let places = places(reader);
        if let Some(place) = places.iter().find(|place| admin.enabled && place.port == admin.port) {
            let message = format!("{} is the port of slot {:?} already", admin.port, place.slot);
            reader.mistake("admin.port", message);
        }
        Self {
            places,
            configured: true,
            root,
            allow_file_repositories,
            allowed_hosts: allowed_hosts.unwrap_or_default(),
            env: env.unwrap_or_default(),
            inherit: inherit.unwrap_or_default(),
            keep,
            builds,
            timeout,
            probe_attempts,
            probe_interval,
            settle,
            kill_timeout,
            daemon_wait,
            log_limit,
            release_limit,
            pm2,
            log_rotate_size,
            log_rotate_keep,
            admin,
        }
    }
}

fn number(
    reader: &mut Reader,
    key: &'static str,
    default: usize,
    least: usize,
    most: usize,
) -> usize {
    let parsed = reader.parsed(key, |text| {
        text.parse::<usize>()
            .ok()
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| format!("{text:?} is out of range: {least} to {most}"))
    });
    parsed.unwrap_or(default)
}

fn size(reader: &mut Reader, key: &'static str, default: u64) -> u64 {
    reader.parsed(key, service::quantity::bytes).unwrap_or(default)
}

fn admin(reader: &mut Reader) -> Admin {
    let enabled = reader.truth("enabled", true);
    let port = port(reader).unwrap_or(9000);
    let command = reader.list("command", |text| Ok(text.to_owned())).and_then(|mut words| {
        let line = match &mut words[..] {
            [text] => CommandLine::Text(std::mem::take(text)),
            _ => CommandLine::Words(words),
        };
        match words::of(&line) {
            Ok(words) if !words.is_empty() => return Some(words),
            Ok(_) => reader.mistake("command", "is empty"),
            Err(error) => reader.mistake("command", error.to_string()),
        }
        None
    });
    let token_file = reader.path("token_file");
    if token_file.is_some() && command.is_some() {
        reader.mistake("token_file", "is of no use beside command, which says all of it");
    }
    Admin { enabled, port, command, cwd: reader.path("cwd"), token_file }
}

fn port(reader: &mut Reader) -> Option<u16> {
    reader.parsed("port", |text| {
        text.parse::<u16>()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| format!("{text:?} is not a port: 1 to 65535"))
    })
}

fn places(reader: &mut Reader) -> Vec<SlotPlace> {
    let mut taken: Vec<SlotPlace> = Vec::new();
    reader.tables("slot", |reader| {
        let slot: Option<SlotId> = reader.value("name");
        let port = port(reader);
        for (key, missing) in [("name", slot.is_none()), ("port", port.is_none())] {
            if missing && !reader.was_wrong(key) {
                reader.mistake(key, "is missing");
            }
        }
        let place = SlotPlace { slot: slot?, port: port? };
        if taken.iter().any(|other| other.slot == place.slot) {
            reader.mistake("name", format!("{:?} names an earlier slot already", place.slot));
        }
        if taken.iter().any(|other| other.port == place.port) {
            reader.mistake("port", format!("{} is an earlier slot's already", place.port));
        }
        taken.push(place);
        Some(())
    });
    if taken.is_empty() { SlotPlace::defaults() } else { taken }
}
