//! The poller's settings: read from all layers, checked together, valid once made.

mod servers;
mod storage;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::ArgMatches;
use service::config::{Form, Key, Mistakes, Reader, Settings};
use service::limits::Reach;
use service::log;
use service::tls::ServerTls;

use crate::client::ClientTls;
use crate::notify::receiver::{self, Receiver};

pub use servers::{MAX_TAGS, Target, exporter_url, is_https, read_token_file, word};
pub use storage::{Backup, Keep};

/// Every setting, as a flag, a variable and a key.
pub const SETTINGS: Settings = Settings {
    env_prefix: "PM2_POLLER",
    shared: &Reach::KEYS,
    keys: &[
        key("listen", "ADDRESS", "Address to listen on (default: 127.0.0.1:10210)"),
        key("database", "FILE", "SQLite database (default: pm2-poller.db)"),
        key("poll_interval", "DURATION", "How often each server is polled (default: 10s)"),
        key("poll_timeout", "DURATION", "How long one poll may take (default: 5s)"),
        key(
            "wait_for_events",
            "BOOL",
            "Whether a request waits for events between polls (default: true)",
        ),
        key(
            "stale_after",
            "DURATION",
            "Without an answer for so long, a server is offline (default: 3 intervals)",
        ),
        key("command_timeout", "DURATION", "How long one command may take (default: 60s)"),
        key("anonymous_read", "BOOL", "Whether anybody may read (default: false)"),
        key("keep_raw", "DURATION", "How long samples are kept as they came (default: 48h)"),
        key("keep_minutes", "DURATION", "How long history by minute is kept (default: 30d)"),
        key("keep_hours", "DURATION", "How long history by hour is kept (default: 400d)"),
        key("keep_events", "DURATION", "How long events are kept (default: 90d)"),
        key("keep_commands", "DURATION", "How long commands are kept (default: 400d)"),
        key("keep_audit", "DURATION", "How long the audit is kept (default: 400d)"),
        key(
            "database_max_size",
            "SIZE",
            "When the database is larger, the oldest history goes (default: no limit)",
        ),
        Key {
            name: "backup",
            form: Form::Toml,
            value: "TOML",
            help: "Copies of the database by schedule: dir, every, keep",
        },
        key("log_format", "FORMAT", "text or json (default: text)"),
        key("log_level", "LEVEL", "off, error, warn, info, debug, trace (default: info)"),
        Key {
            name: "tls",
            form: Form::Toml,
            value: "TOML",
            help: "TLS of the listener: cert_file, key_file, client_ca_file, …",
        },
        Key {
            name: "exporter_tls",
            form: Form::Toml,
            value: "TOML",
            help: "TLS to https:// exporters: ca_file or fingerprint, cert_file, key_file",
        },
        Key {
            name: "notify",
            form: Form::Toml,
            value: "TOML",
            help: "Who is told of alerts: name, type, url or url_file, severities, …",
        },
        Key {
            name: "servers",
            form: Form::Toml,
            value: "TOML",
            help: "Servers, as [{id = \"vm1\", url = \"http://vm1:10209\"}]",
        },
        Key {
            name: "server_files",
            form: Form::List,
            value: "FILE,…",
            help: "Files of servers as Prometheus' file_sd reads them, such as targets/*.json; \
                   what changes in them is used at once",
        },
        key(
            "token_dir",
            "DIR",
            "Where tokens for exporters are kept that were made here or given over HTTP \
             (default: exporter-tokens beside the database)",
        ),
    ],
};

const fn key(name: &'static str, value: &'static str, help: &'static str) -> Key {
    Key { name, form: Form::Text, value, help }
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// What the poller was told to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that it was read from, if there is one.
    pub file: Option<PathBuf>,
    /// Nothing is in it.
    pub is_blank: bool,
    /// Address to listen on.
    pub listen: SocketAddr,
    /// The SQLite file.
    pub database: PathBuf,
    /// When and how long polls are.
    pub timing: Timing,
    /// How long one command may take, from sending to its end.
    pub command_timeout: Duration,
    /// Whether reading needs no credential although there are tokens.
    pub anonymous_read: bool,
    /// Who may ask how much, and by which name.
    pub reach: Reach,
    /// How long things are kept.
    pub keep: Keep,
    /// Copies of the database, if any.
    pub backup: Option<Backup>,
    /// How log lines look.
    pub log_format: log::Format,
    /// What is logged.
    pub log_level: log::Level,
    /// TLS of the listener; without it, plain HTTP.
    pub tls: Option<ServerTls>,
    /// TLS to those exporters for which nothing else is said.
    pub exporter_tls: ClientTls,
    /// Who is told of alerts.
    pub notify: Vec<Arc<Receiver>>,
    /// Servers of the configuration, by id; the database may add others.
    pub servers: Vec<Arc<Target>>,
    /// Files that list further ones; the last part of a path may have `*`.
    pub server_files: Vec<PathBuf>,
    /// Where tokens for exporters are kept that were made here or given over HTTP.
    pub token_dir: PathBuf,
}

/// When polls happen and how long they may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From one poll of a server to the next.
    pub interval: Duration,
    /// For one poll, all of it.
    pub timeout: Duration,
    /// Without an answer for so long, a server is offline.
    pub stale_after: Duration,
    /// Whether a request waits for events between polls.
    pub wait_for_events: bool,
}

impl Config {
    /// Reads every layer. `env` gives environment variables.
    ///
    /// # Errors
    /// All mistakes, each with its key.
    pub fn read(
        matches: &ArgMatches,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Mistakes> {
        let file = SETTINGS.file(matches, &env);
        let mut reader = SETTINGS.read(matches, env)?;
        let config = Self { file, ..Self::from_reader(&mut reader) };
        reader.finish(Some(config))
    }

    fn from_reader(reader: &mut Reader) -> Self {
        let listen =
            reader.value("listen").unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 10210)));
        let database = reader.path("database").unwrap_or_else(|| "pm2-poller.db".into());
        let interval = reader.duration("poll_interval", 10 * SECOND, SECOND..=HOUR);
        let timeout = reader.duration(
            "poll_timeout",
            (5 * SECOND).min(interval),
            Duration::from_millis(100)..=HOUR,
        );
        if timeout > interval {
            let message =
                format!("{timeout:?} is longer than poll_interval, which is {interval:?}");
            reader.mistake("poll_timeout", message);
        }
        let stale_after = reader.duration("stale_after", 3 * interval, SECOND..=DAY);
        if stale_after < interval {
            let message =
                format!("{stale_after:?} is shorter than poll_interval, which is {interval:?}");
            reader.mistake("stale_after", message);
        }
        let exporter_tls = ClientTls::read(reader, "exporter_tls").unwrap_or_default();
        let wait_for_events = reader.truth("wait_for_events", true);
        let token_dir = reader.path("token_dir").unwrap_or_else(|| beside(&database));
        Self {
            file: None,
            is_blank: reader.is_blank(),
            listen,
            database,
            timing: Timing { interval, timeout, stale_after, wait_for_events },
            command_timeout: reader.duration("command_timeout", 60 * SECOND, SECOND..=HOUR),
            anonymous_read: reader.truth("anonymous_read", false),
            reach: Reach::read(reader, listen),
            keep: storage::keep(reader),
            backup: storage::backup(reader),
            log_format: reader.value("log_format").unwrap_or_default(),
            log_level: reader.value("log_level").unwrap_or_default(),
            tls: ServerTls::read(reader),
            notify: receiver::read(reader),
            servers: servers::servers(reader, &exporter_tls),
            server_files: servers::files(reader),
            token_dir,
            exporter_tls,
        }
    }

    /// The longest that an answer to a command's caller may be waited for.
    pub const MAX_WAIT: Duration = Duration::from_secs(60);
}

/// The folder of tokens that goes with a database.
fn beside(database: &Path) -> PathBuf {
    database.parent().unwrap_or(Path::new("")).join("exporter-tokens")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn read(file: &str, env: &[(&str, &str)]) -> Result<Config, Mistakes> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("poller.toml");
        std::fs::write(&path, file).unwrap();
        std::fs::write(folder.path().join("good.token"), "pm2x_abc\n").unwrap();
        std::fs::write(folder.path().join("bad.token"), "two words").unwrap();
        let matches = clap::Command::new("test").args(SETTINGS.args()).get_matches_from([
            "test",
            "--config",
            path.to_str().unwrap(),
        ]);
        Config::read(&matches, |name| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn defaults() {
        let config = read("", &[]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:10210");
        assert_eq!(config.database, Path::new("pm2-poller.db"));
        assert_eq!(config.timing.stale_after, Duration::from_secs(30));
        assert_eq!(config.keep.raw, 48 * HOUR);
        assert!(config.servers.is_empty() && !config.anonymous_read);
    }

    #[test]
    fn a_short_interval_shortens_the_default_timeout() {
        let config = read("poll_interval = \"2s\"", &[]).unwrap();
        assert_eq!(config.timing.timeout, Duration::from_secs(2));
    }

    #[test]
    fn the_servers_of_the_design() {
        let file = "[[servers]]\nid = \"vm1-prod\"\nurl = \"http://127.0.0.1:10209/\"\n\
                    token_file = \"good.token\"\ngroup = \"eu\"\ntags = [\"prod\", \"a\"]";
        let config = read(file, &[]).unwrap();
        let server = &config.servers[0];
        assert_eq!(server.url, "http://127.0.0.1:10209");
        assert_eq!(server.tags, ["a", "prod"]);
        assert_eq!(server.credential, Ok(Some(HeaderValue::from_static("Bearer pm2x_abc"))));
        assert!(!format!("{server:?}").contains("pm2x_abc"));
    }

    #[test]
    fn every_mistake_is_told_at_once_with_its_key() {
        let file = "poll_interval = \"5s\"\npoll_timeout = \"6s\"\nstale_after = \"1s\"\n\
            [[servers]]\nid = \"a\"\nurl = \"https://a?x=1\"\n\
            [[servers]]\nid = \"a\"\nurl = \"http://user:canary@a\"\n\
            [[servers]]\nurl = \"ftp://a\"\ntoken = \"canary\"\n\
            [[servers]]\nid = \"c\"\nurl = \"http://c\"\ntoken_file = \"bad.token\"\n\
            [[servers]]\nid = \"d\"\nurl = \"http://169.254.169.254\"\ntoken_file = \"no.token\"\n\
            [[servers]]\nid = \"e\"\nurl = \"http://e?x=1\"\ntags = [\"a,b\", \"\"]\n";
        let mistakes = read(file, &[]).unwrap_err();
        let text = mistakes.to_string();
        let keys: Vec<&str> = mistakes.0.iter().map(|mistake| mistake.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "poll_timeout",
                "stale_after",
                "servers[0].url",
                "servers[1].id",
                "servers[1].url",
                "servers[2].id",
                "servers[2].url",
                "servers[2].token",
                "servers[3].token_file",
                "servers[4].url",
                "servers[4].token_file",
                "servers[5].url",
                "servers[5].tags[0]",
                "servers[5].tags[1]",
            ],
            "{text}"
        );
        assert!(!text.contains("canary"), "{text}");
    }
}
