//! Settings of the exporter.

mod homes;
mod relays;
mod tokens;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use exposition::compat::{self, Compat};
use exposition::{Labels, families};
use service::config::{Form, Key, Mistakes, Reader, Settings};
use service::limits::Reach;
use service::log;
use service::quantity;
use service::tls::ServerTls;

use crate::access::TokenEntry;
use crate::filter::Filter;
use crate::slots;
use crate::web_config::WebConfig;

pub use homes::HomePaths;
pub use relays::Relay;

const SECOND: Duration = Duration::from_secs(1);

/// Every key of `exporter.toml`.
pub const SETTINGS: Settings = Settings {
    env_prefix: "PM2_EXPORTER",
    shared: &Reach::KEYS,
    keys: &[
        key("listen", Form::Text, "ADDRESS", "Where to listen (default: 127.0.0.1:10209)"),
        key(
            "pm2_homes",
            Form::List,
            "DIRS",
            "PM2's directories, slots in the first (default: $PM2_HOME or ~/.pm2)",
        ),
        key(
            "state_dir",
            Form::Text,
            "DIR",
            "Where journal and counters are kept (default: $STATE_DIRECTORY, or in memory)",
        ),
        key("sample_interval", Form::Text, "DURATION", "Between samples (default: 10s)"),
        key(
            "custom_metrics_max_age",
            Form::Text,
            "DURATION",
            "How old the metrics that applications report may be (default: 10s)",
        ),
        key("journal_size", Form::Text, "SIZE", "Memory for the journal (default: 2MiB)"),
        key(
            "compat",
            Form::Text,
            "NAME",
            "Serve other names: pm2-metrics or pm2-prom-module (default: none)",
        ),
        key("include", Form::List, "NAMES", "Watch only these apps; * stands for anything"),
        key("exclude", Form::List, "NAMES", "Do not watch these apps"),
        key("modules", Form::Text, "BOOL", "Watch PM2's modules as well (default: true)"),
        key("labels", Form::Toml, "TOML", "Labels for every series, such as {dc = \"eu1\"}"),
        key(
            "exit_stderr",
            Form::Text,
            "BOOL",
            "Whether exits carry the last lines of stderr (default: true)",
        ),
        key(
            "anonymous_read",
            Form::Text,
            "BOOL",
            "Let everybody read, although there are tokens (default: false)",
        ),
        key(
            "log_level",
            Form::Text,
            "LEVEL",
            "off, error, warn, info, debug, trace (default: info)",
        ),
        key("log_format", Form::Text, "FORMAT", "text or json (default: text)"),
        key("tls", Form::Toml, "TOML", "TLS: cert_file, key_file, client_ca_file, …"),
        key(
            "web_config_file",
            Form::Text,
            "FILE",
            "TLS and users in the form of Prometheus' web.config.file",
        ),
        key(
            "tokens",
            Form::Toml,
            "TOML",
            "Who may do what: name, sha256, scopes, apps, slots, expires",
        ),
        key(
            "relay",
            Form::Toml,
            "TOML",
            "Applications' own Prometheus pages: app, url, instance_id, …",
        ),
        key("slots", Form::Toml, "TOML", "Slots: root, env, slot (name, port)"),
    ],
};

const fn key(name: &'static str, form: Form, value: &'static str, help: &'static str) -> Key {
    Key { name, form, value, help }
}

/// Settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that it was read from is empty.
    pub is_blank: bool,
    /// So is its `web_config_file`.
    pub web_is_blank: bool,
    /// Where to listen.
    pub listen: SocketAddr,
    /// PM2's directories.
    pub pm2_homes: HomePaths,
    /// Where what must outlive the exporter is kept; without it, it lives in memory.
    pub state_dir: Option<PathBuf>,
    /// Between samples.
    pub sample_interval: Duration,
    /// How old metrics that applications report may be.
    pub custom_metrics_max_age: Duration,
    /// Bytes of journal.
    pub journal_size: usize,
    /// Whose metric names are served.
    pub compat: Compat,
    /// Which apps are watched.
    pub filter: Filter,
    /// Labels of every series.
    pub labels: Labels,
    /// Whether exits carry the last lines of stderr.
    pub exit_stderr: bool,
    /// Everybody may read.
    pub anonymous_read: bool,
    /// Who may ask how much, and by which name.
    pub reach: Reach,
    /// What is logged.
    pub log_level: log::Level,
    /// How.
    pub log_format: log::Format,
    /// TLS for who asks; without it, plain HTTP.
    pub tls: Option<ServerTls>,
    /// Users who may read, with bcrypt's hashes of their passwords.
    pub users: Vec<(String, String)>,
    /// Who may do what.
    pub tokens: Vec<TokenEntry>,
    /// Pages of applications that are relayed.
    pub relays: Vec<Relay>,
    /// Slots that were configured; the default ones are shown only where they exist.
    pub slots: slots::Settings,
}

impl Config {
    /// Reads all settings.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn read(
        mut reader: Reader,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Mistakes> {
        let listen = reader.value("listen").unwrap_or(SocketAddr::from(([127, 0, 0, 1], 10209)));
        let pm2_homes = homes::read(&mut reader, &env);
        // systemd makes a directory for a service that asks for one, and names it so.
        let state_dir =
            reader.path("state_dir").or_else(|| env("STATE_DIRECTORY").map(PathBuf::from));
        let sample_interval =
            reader.duration("sample_interval", SECOND * 10, SECOND..=SECOND * 3600);
        let custom_metrics_max_age =
            reader.duration("custom_metrics_max_age", SECOND * 10, Duration::ZERO..=SECOND * 3600);
        let journal_size = reader
            .parsed("journal_size", |text| {
                let size = quantity::bytes(text)?;
                usize::try_from(size)
                    .ok()
                    .filter(|size| (65_536..=1 << 30).contains(size))
                    .ok_or_else(|| format!("{text:?} is out of range: 64KiB to 1GiB"))
            })
            .unwrap_or(2 << 20);
        let compat = reader.parsed("compat", str::parse).unwrap_or_default();
        let names = |text: &str| match text.len() {
            1..=255 => Ok(text.to_owned()),
            _ => Err(format!(
                "{:?} is not 1 to 255 bytes",
                text.chars().take(40).collect::<String>()
            )),
        };
        let filter = Filter {
            include: reader.list("include", names).unwrap_or_default(),
            exclude: reader.list("exclude", names).unwrap_or_default(),
            modules: reader.truth("modules", true),
        };
        let labels = labels(&mut reader, compat);
        let exit_stderr = reader.truth("exit_stderr", true);
        let anonymous_read = reader.truth("anonymous_read", false);
        let reach = Reach::read(&mut reader, listen);
        let log_level = reader.value("log_level").unwrap_or_default();
        let log_format = reader.value("log_format").unwrap_or_default();
        let tls = ServerTls::read(&mut reader);
        let web = web_config(&mut reader);
        if tls.is_some() && web.tls.is_some() {
            reader.mistake(
                "tls",
                "is there beside tls_server_config in web_config_file: leave one out",
            );
        }
        let tokens = tokens::read(&mut reader);
        let relays = relays::read(&mut reader, pm2_homes.as_ref());
        let slots = slots::Settings::read(&mut reader);
        if !listen.ip().is_loopback() && tokens.is_empty() && web.users.is_empty() {
            reader.mistake(
                "listen",
                format!("{listen} is reachable from outside, and there are no [[tokens]]"),
            );
        }
        let is_blank = reader.is_blank();
        let config = pm2_homes.map(|pm2_homes| Self {
            is_blank,
            web_is_blank: web.is_blank,
            listen,
            pm2_homes,
            state_dir,
            sample_interval,
            custom_metrics_max_age,
            journal_size,
            compat,
            filter,
            labels,
            exit_stderr,
            anonymous_read,
            reach,
            log_level,
            log_format,
            tls: tls.or(web.tls),
            users: web.users,
            tokens,
            relays,
            slots,
        });
        reader.finish(config)
    }
}

impl Config {
    /// Whether there is anybody who can show who they are.
    pub fn has_credentials(&self) -> bool {
        !self.tokens.is_empty() || !self.users.is_empty()
    }

    /// What is fixed while the program runs, by key.
    pub(crate) fn needing_restart(&self) -> [(&'static str, String); 13] {
        [
            ("listen", self.listen.to_string()),
            ("pm2_homes", format!("{:?}", self.pm2_homes)),
            ("state_dir", format!("{:?}", self.state_dir)),
            ("sample_interval", format!("{:?}", self.sample_interval)),
            ("custom_metrics_max_age", format!("{:?}", self.custom_metrics_max_age)),
            ("journal_size", self.journal_size.to_string()),
            ("compat", self.compat.to_string()),
            ("include, exclude, modules", format!("{:?}", self.filter)),
            ("labels", format!("{:?}", self.labels)),
            ("tls", format!("{:?}", self.tls)),
            (
                "max_connections, max_requests_per_second, trusted_proxies, allowed_hosts",
                format!("{:?}", self.reach),
            ),
            ("relay", format!("{:?}", self.relays)),
            ("slots", format!("{:?}", self.slots)),
        ]
    }
}

fn web_config(reader: &mut Reader) -> WebConfig {
    let Some(path) = reader.path("web_config_file") else { return WebConfig::default() };
    WebConfig::read(&path).unwrap_or_else(|message| {
        reader.mistake("web_config_file", message);
        WebConfig::default()
    })
}

fn labels(reader: &mut Reader, compat: Compat) -> Labels {
    let mut labels = Labels::default();
    reader.table("labels", |reader| {
        for (name, value) in reader.rest() {
            let first =
                name.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_');
            let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !first || !plain || name.starts_with("__") {
                reader.mistake(&name, "is not a label: letters, digits and '_', no digit first");
            } else if OWN_LABELS.contains(&name.as_str())
                || families::ALL.iter().any(|family| family.labels.contains(&name.as_str()))
                || compat::own_labels(compat).contains(&name.as_str())
            {
                reader.mistake(&name, "is a label that the exporter sets itself");
            } else {
                labels.push(&name, &value);
            }
        }
        Some(())
    });
    labels
}

/// Labels that series carry anyway beside those of their family, and those that Prometheus and the
/// poller set.
const OWN_LABELS: &[&str] =
    &["name", "namespace", "instance_id", "pm2_home", "slot", "server", "job", "instance", "le"];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str) -> Result<Config, Mistakes> {
        let reader = Reader::new(file.parse().unwrap(), "", "exporter.toml");
        Config::read(reader, |name| (name == "HOME").then(|| "/home/app".to_owned()))
    }

    #[test]
    fn nothing_needs_to_be_configured() {
        let config = read("").unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:10209");
        assert_eq!(config.pm2_homes.first, PathBuf::from("/home/app/.pm2"));
        assert!(!config.pm2_homes.are_several());
        assert!(config.tokens.is_empty() && !config.slots.configured);
    }

    #[test]
    fn the_example_of_the_design_is_read() {
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let config = read(&format!(
            "listen = \"127.0.0.1:10209\"\npm2_homes = [\"/home/app/.pm2\"]\n\
             state_dir = \"/var/lib/pm2-exporter\"\nsample_interval = \"10s\"\ncompat = \"none\"\n\
             [[tokens]]\nname = \"poller\"\nsha256 = \"{hash}\"\nscopes = [\"read\", \"control\"]\n\
             [slots]\nroot = \"/srv/slots\"\nallow_file_repositories = false\n\
             allowed_hosts = [\"github.com\"]\n[slots.env]\nNODE_ENV = \"production\"\n\
             [[slots.slot]]\nname = \"a\"\nport = 3001"
        ))
        .unwrap();
        assert_eq!(config.tokens[0].name, "poller");
        assert_eq!(config.slots.places[0].port, 3001);
    }

    #[test]
    fn several_homes_are_watched_each_once() {
        let homes = |text: &str| read(&format!("pm2_homes = {text}"));
        let config = homes(r#"["/home/app/.pm2", "/home/web/.pm2/"]"#).unwrap();
        assert!(config.pm2_homes.are_several());
        assert_eq!(config.pm2_homes.all().count(), 2);
        for wrong in [r#"["/a", "/a/"]"#, "[]", r#"["/a", "b"]"#] {
            let mistakes = homes(wrong).unwrap_err();
            assert!(mistakes.0[0].key.starts_with("pm2_homes"), "{mistakes}");
        }
    }

    #[test]
    fn a_token_may_be_limited_and_may_end() {
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let token = |more: &str| {
            read(&format!(
                "[[tokens]]\nname = \"t\"\nsha256 = \"{hash}\"\nscopes = [\"read\"]\n{more}"
            ))
        };
        let config = token("apps = [\"api*\"]\nexpires = \"2026-01-31T12:00:00Z\"").unwrap();
        assert!(config.tokens[0].limits.is_some() && config.tokens[0].expires.is_some());
        assert!(token("").unwrap().tokens[0].limits.is_none());
        for (more, key) in [
            ("slots = [\"../a\"]", "tokens[0].slots[0]"),
            ("apps = [\"\"]", "tokens[0].apps[0]"),
            ("expires = \"soon\"", "tokens[0].expires"),
        ] {
            assert_eq!(token(more).unwrap_err().0[0].key, key);
        }
    }

    #[test]
    fn a_label_that_a_page_has_itself_is_refused() {
        let wrong = |compat: &str, label: &str| {
            let file = format!("compat = {compat:?}\nlabels = {{{label} = \"x\"}}");
            read(&file).is_err_and(|mistakes| mistakes.0[0].key == format!("labels.{label}"))
        };
        for label in ["name", "target", "reason", "exec_mode", "token", "branch", "version", "le"] {
            assert!(wrong("none", label), "{label}");
        }
        for (label, compats) in
            [("id", &["pm2-metrics"][..]), ("app", &["pm2-prom-module"]), ("serviceName", &[])]
        {
            for compat in ["none", "pm2-metrics", "pm2-prom-module"] {
                assert_eq!(wrong(compat, label), compats.contains(&compat), "{label} {compat}");
            }
        }
    }

    #[test]
    fn all_mistakes_are_told_together() {
        let file = "listen = \"0.0.0.0:1\"\npm2_homes = [\"relative\"]\nsample_interval = \"1ms\"\n\
             journal_size = \"1\"\ncompat = \"other\"\nlabels = {name = \"x\", ok = \"y\"}\n[[tokens]]\nname = \"a b\"\nsha256 = \"canary\"\n\
             scopes = [\"all\"]\n[slots]\n[[slots.slot]]\nname = \"a\"\nport = 0\n\
             [[slots.slot]]\nport = 3001";
        let mistakes = read(file).unwrap_err();
        let keys: Vec<&str> = mistakes.0.iter().map(|mistake| mistake.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "pm2_homes[0]",
                "sample_interval",
                "journal_size",
                "compat",
                "labels.name",
                "tokens[0].name",
                "tokens[0].sha256",
                "tokens[0].scopes[0]",
                "slots.slot[0].port",
                "slots.slot[1].name",
                "listen",
            ],
            "{mistakes}"
        );
        assert!(!mistakes.to_string().contains("canary"), "{mistakes}");
    }
}
