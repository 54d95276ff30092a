//! The poller's settings: read from all layers, checked together, valid once made.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use clap::ArgMatches;
use reqwest::Url;
use service::config::{Form, Key, Mistakes, Reader, Settings};
use service::log;
use wire::ServerId;

/// Every setting, as a flag, a variable and a key.
pub const SETTINGS: Settings = Settings {
    env_prefix: "PM2_POLLER",
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
        key("keep_raw", "DURATION", "How long samples are kept (default: 48h)"),
        key("keep_events", "DURATION", "How long events are kept (default: 90d)"),
        key("keep_commands", "DURATION", "How long commands and audit are kept (default: 400d)"),
        key("log_format", "FORMAT", "text or json (default: text)"),
        key("log_level", "LEVEL", "off, error, warn, info, debug, trace (default: info)"),
        Key {
            name: "servers",
            form: Form::Toml,
            value: "TOML",
            help: "Servers, as [{id = \"vm1\", url = \"http://vm1:10209\"}]",
        },
    ],
};

const fn key(name: &'static str, value: &'static str, help: &'static str) -> Key {
    Key { name, form: Form::Text, value, help }
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// Most tags of a server, and most bytes of one tag or group name.
const MAX_TAGS: usize = 32;
const MAX_WORD: usize = 64;

/// What the poller was told to do.
#[derive(Clone, Debug)]
pub struct Config {
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
    /// How long things are kept.
    pub keep: Keep,
    /// How log lines look.
    pub log_format: log::Format,
    /// What is logged.
    pub log_level: log::Level,
    /// Servers of the configuration, by id; the database may add others.
    pub servers: Vec<Arc<Target>>,
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

/// How long things are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Samples.
    pub raw: Duration,
    /// Events.
    pub events: Duration,
    /// Commands and audit.
    pub commands: Duration,
}

/// A server to poll. Two that are equal need no new task on a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its id: the only name it has here, whatever its exporter says.
    pub id: ServerId,
    /// Where its exporter is, without a slash at the end and without credentials.
    pub url: String,
    /// Its group; empty for none.
    pub group: String,
    /// Its tags, sorted.
    pub tags: Vec<String>,
    /// The `Authorization` header for its exporter, or why there is none although there
    /// should be.
    pub credential: Result<Option<HeaderValue>, String>,
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
        let mut reader = SETTINGS.read(matches, env)?;
        let config = Self::from_reader(&mut reader);
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
        let wait_for_events = reader.truth("wait_for_events", true);
        Self {
            listen,
            database,
            timing: Timing { interval, timeout, stale_after, wait_for_events },
            command_timeout: reader.duration("command_timeout", 60 * SECOND, SECOND..=HOUR),
            anonymous_read: reader.truth("anonymous_read", false),
            keep: Keep {
                raw: reader.duration("keep_raw", 48 * HOUR, HOUR..=400 * DAY),
                events: reader.duration("keep_events", 90 * DAY, HOUR..=3650 * DAY),
                commands: reader.duration("keep_commands", 400 * DAY, DAY..=3650 * DAY),
            },
            log_format: reader.value("log_format").unwrap_or_default(),
            log_level: reader.value("log_level").unwrap_or_default(),
            servers: servers(reader),
        }
    }

    /// The longest that an answer to a command's caller may be waited for.
    pub const MAX_WAIT: Duration = Duration::from_secs(60);
}

fn servers(reader: &mut Reader) -> Vec<Arc<Target>> {
    let mut seen = BTreeSet::new();
    reader.tables("servers", |server| {
        let missing = |server: &mut Reader, key: &'static str| {
            if !server.has(key) {
                server.mistake(key, "is missing");
            }
        };
        missing(server, "id");
        missing(server, "url");
        let id = server.value::<ServerId>("id");
        if let Some(id) = &id
            && !seen.insert(id.clone())
        {
            server.mistake("id", format!("{:?} is there twice", id.as_str()));
        }
        let url = server.parsed("url", exporter_url);
        let group = server.parsed("group", word).unwrap_or_default();
        let mut tags = server.list("tags", word).unwrap_or_default();
        if tags.len() > MAX_TAGS {
            server.mistake("tags", format!("{} tags; at most {MAX_TAGS} are allowed", tags.len()));
        }
        tags.sort();
        tags.dedup();
        let credential = match server.path("token_file") {
            None => None,
            Some(path) => match read_token_file(&path) {
                Ok(header) => Some(header),
                Err(message) => {
                    server.mistake("token_file", message);
                    None
                }
            },
        };
        Some(Arc::new(Target { id: id?, url: url?, group, tags, credential: Ok(credential) }))
    })
}

/// A group or tag: 1 to 64 bytes without control characters or commas.
///
/// # Errors
/// A sentence that names the text and what is allowed.
pub fn word(text: &str) -> Result<String, String> {
    let good = (1..=MAX_WORD).contains(&text.len())
        && text.trim() == text
        && !text.chars().any(|c| c.is_control() || c == ',');
    if good {
        return Ok(text.to_owned());
    }
    let shown: String = text.chars().take(MAX_WORD).collect();
    Err(format!(
        "{shown:?} is not allowed: 1 to {MAX_WORD} bytes without commas or control characters"
    ))
}

/// The address of an exporter, in the form in which paths are added to it.
///
/// # Errors
/// A sentence that names what is wrong; the text itself only when it holds no credential.
pub fn exporter_url(text: &str) -> Result<String, String> {
    let shown: String = text.chars().take(200).collect();
    let url = Url::parse(text)
        .map_err(|error| format!("is not a URL ({error}): http://HOST:PORT expected"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or password: put a token into token_file instead".to_owned());
    }
    match url.scheme() {
        "http" => {}
        "https" => {
            return Err(format!("{shown:?}: this build has no TLS yet: only http:// is possible"));
        }
        other => return Err(format!("{shown:?}: {other:?} is not http")),
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("holds a query or fragment: http://HOST:PORT expected".to_owned());
    }
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
        return Err(format!("{shown:?} has no host"));
    };
    // Cloud providers hand out credentials at these addresses to whoever can make a server ask.
    let link_local = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_link_local(),
        Ok(IpAddr::V6(address)) => {
            address.is_unicast_link_local()
                || address.to_ipv4_mapped().is_some_and(|address| address.is_link_local())
        }
        Err(_) => false,
    };
    if link_local {
        return Err(format!("{shown:?}: link-local addresses are not polled"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// The `Authorization` header from a file that holds a token, on one line.
///
/// # Errors
/// The file cannot be read or holds something else; the token is never quoted.
pub fn read_token_file(path: &Path) -> Result<HeaderValue, String> {
    const MAX: u64 = 4096;
    let shown = path.display();
    let too_long = std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() > MAX);
    if too_long {
        return Err(format!("{shown} is longer than {MAX} bytes: one token expected"));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{shown} cannot be read: {error}"))?;
    let token = text.trim();
    let good = (1..=512).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic());
    let header = HeaderValue::try_from(format!("Bearer {token}"));
    match header {
        Ok(mut header) if good => {
            header.set_sensitive(true);
            Ok(header)
        }
        _ => {
            Err(format!("{shown} holds no token: one line of 1 to 512 visible characters expected"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            [[servers]]\nid = \"a\"\nurl = \"https://a\"\n\
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
