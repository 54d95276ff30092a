//! `[[notify]]`: who is told, of which alerts, and how.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, header};
use exposition::alerts;
use reqwest::Url;
use service::config::Reader;
use service::places::is_forbidden_host;
use wire::{ServerId, Severity};

use super::alert::{Active, Key};
use super::template::Template;
use crate::client::ClientTls;
use crate::config::{exporter_url, read_token_file, word};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// Longest file that holds a header's value, a URL or a template, in bytes.
const MAX_FILE: u64 = 16 * 1024;
const MAX_RECEIVERS: usize = 32;
const MAX_HEADERS: usize = 16;

/// What kind of program the receiver is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Alertmanager, by version 2 of its API.
    Alertmanager,
    /// What takes Slack's incoming webhooks: Mattermost, Rocket.Chat, Discord too.
    Slack,
    /// Anything else; its own body, or all that is known as JSON.
    Webhook(Option<Template>),
}

impl Kind {
    /// The word of the configuration.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Alertmanager => "alertmanager",
            Self::Slack => "slack",
            Self::Webhook(_) => "webhook",
        }
    }
}

/// Where it is. The path of a webhook is mostly a secret, so only its host is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(pub Url);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.origin().ascii_serialization())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}/…")
    }
}

/// One of `[[notify]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// Its name, in logs and metrics.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Where it is.
    pub address: Address,
    /// Headers of its own; their values are marked as sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How it is known for the one it should be; none without TLS.
    pub tls: Option<ClientTls>,
    /// Alerts of these severities only; all when empty.
    pub severities: BTreeSet<Severity>,
    /// These alerts only, likewise.
    pub alerts: BTreeSet<&'static str>,
    /// Of these servers only; alerts of the poller itself are of none.
    pub servers: BTreeSet<ServerId>,
    /// Of servers of these groups only.
    pub groups: BTreeSet<String>,
    /// Of servers with one of these tags only.
    pub tags: BTreeSet<String>,
    /// How long a condition holds before it is told, in the place of each alert's own time.
    pub hold: Option<Duration>,
    /// How long the first change waits for others, to be told together.
    pub group_wait: Duration,
    /// After so long, what still holds is told again.
    pub repeat_interval: Duration,
    /// Whether it is told what is over.
    pub resolved: bool,
    /// For one request, all of it.
    pub timeout: Duration,
    /// Where the runbooks are; none for no links to them.
    pub runbook_url: Option<String>,
    /// Where people find the poller's page; none for no links to it.
    pub page_url: Option<String>,
}

impl Receiver {
    /// Whether it is to hear of that.
    pub fn wants(&self, key: &Key, active: &Active) -> bool {
        let any =
            |wanted: &BTreeSet<String>, word: &str| wanted.is_empty() || wanted.contains(word);
        let Some(alert) = key.of() else { return false };
        (self.severities.is_empty() || self.severities.contains(&alert.severity))
            && (self.alerts.is_empty() || self.alerts.contains(alert.name))
            && (self.servers.is_empty()
                || key.label("server").is_some_and(|server| self.servers.contains(server)))
            && any(&self.groups, &active.group)
            && (self.tags.is_empty() || active.tags.iter().any(|tag| self.tags.contains(tag)))
    }
}

/// Reads all of them.
pub fn read(reader: &mut Reader) -> Vec<Arc<Receiver>> {
    let mut names = BTreeSet::new();
    let all = reader.tables("notify", |table| {
        let receiver = one(table)?;
        if !names.insert(receiver.name.clone()) {
            table.mistake("name", format!("{:?} is there twice", receiver.name));
        }
        Some(Arc::new(receiver))
    });
    if all.len() > MAX_RECEIVERS {
        let message = format!("{} receivers; at most {MAX_RECEIVERS} are allowed", all.len());
        reader.mistake("notify", message);
    }
    all
}

fn one(table: &mut Reader) -> Option<Receiver> {
    for key in ["name", "type"] {
        if !table.has(key) {
            table.mistake(key, "is missing");
        }
    }
    let name = table.parsed("name", |text| {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        match (1..=64).contains(&text.len()) && text.chars().all(plain) {
            true => Ok(text.to_owned()),
            false => Err(format!("{text:?} is not a name: 1 to 64 letters, digits, '-', '_', '.'")),
        }
    });
    let kind = table.parsed("type", |text| match text {
        "alertmanager" => Ok(Kind::Alertmanager),
        "slack" => Ok(Kind::Slack),
        "webhook" => Ok(Kind::Webhook(None)),
        _ => Err(format!("{text:?} is not a type: alertmanager, slack or webhook")),
    });
    let kind = body(table, kind);
    let address = address(table, kind.as_ref());
    let headers = headers(table);
    let tls = ClientTls::read(table, "tls");
    let https = address.as_ref().is_none_or(|address| address.0.scheme() == "https");
    if tls.is_some() && !https {
        table.mistake("tls", "is of no use with http://: the url must begin with https://");
    }
    let severities = table.list("severities", |text| {
        let known = [Severity::Warning, Severity::Critical];
        known
            .into_iter()
            .find(|severity| severity.as_str() == text)
            .ok_or_else(|| format!("{text:?} is not a severity of an alert: warning or critical"))
    });
    let alerts = table.list("alerts", |text| match alerts::named(text) {
        Some(alert) if *alert == alerts::POLLER_DOWN => {
            Err(format!("{text:?} cannot be told by the poller itself: Prometheus alerts on it"))
        }
        Some(alert) => Ok(alert.name),
        None => {
            let names: Vec<&str> = alerts::ALL.iter().map(|alert| alert.name).collect();
            Err(format!("{text:?} is not an alert: {}", names.join(", ")))
        }
    });
    let server = |text: &str| text.parse::<ServerId>().map_err(|error| error.to_string());
    let servers = table.list("servers", server);
    let (groups, tags) = (table.list("groups", word), table.list("tags", word));
    let hold = table.has("hold").then(|| table.duration("hold", MINUTE, Duration::ZERO..=DAY));
    // Alertmanager waits and groups by itself, and takes an alert for over that nobody repeats.
    let itself = kind == Some(Kind::Alertmanager);
    let (wait, repeat) = if itself { (Duration::ZERO, MINUTE) } else { (10 * SECOND, 4 * HOUR) };
    let receiver = Receiver {
        group_wait: table.duration("group_wait", wait, Duration::ZERO..=HOUR),
        repeat_interval: table.duration("repeat_interval", repeat, SECOND..=30 * DAY),
        resolved: table.truth("resolved", true),
        timeout: table.duration("timeout", 10 * SECOND, Duration::from_millis(100)..=MINUTE),
        runbook_url: table.parsed("runbook_url", base),
        page_url: table.parsed("page_url", base),
        name: name?,
        tls: address
            .as_ref()
            .filter(|address| address.0.scheme() == "https")
            .map(|_| tls.unwrap_or_default()),
        kind: kind?,
        address: address?,
        headers,
        severities: severities.into_iter().flatten().collect(),
        alerts: alerts.into_iter().flatten().collect(),
        servers: servers.into_iter().flatten().collect(),
        groups: groups.into_iter().flatten().collect(),
        tags: tags.into_iter().flatten().collect(),
        hold,
    };
    Some(receiver)
}

/// A webhook's own body.
fn body(table: &mut Reader, kind: Option<Kind>) -> Option<Kind> {
    let text = table.parsed("body", Template::parse);
    let file = table.path("body_file").map(|path| {
        file(&path).and_then(|text| Template::parse(&text)).map_err(|message| {
            table.mistake("body_file", message);
        })
    });
    if text.is_some() && file.is_some() {
        table.mistake("body_file", "is of no use beside body: leave one out");
    }
    let template = text.or_else(|| file.and_then(Result::ok));
    match kind {
        Some(Kind::Webhook(_)) => Some(Kind::Webhook(template)),
        Some(other) => {
            if template.is_some() {
                table.mistake("body", format!("is of no use with type = {:?}", other.as_str()));
            }
            Some(other)
        }
        None => None,
    }
}

/// `url`, or what stands in `url_file`.
fn address(table: &mut Reader, kind: Option<&Kind>) -> Option<Address> {
    let alertmanager = kind == Some(&Kind::Alertmanager);
    let parse = |text: &str| target(text, alertmanager);
    let direct = table.has("url");
    let given = table.parsed("url", parse);
    match (direct, table.path("url_file")) {
        (true, Some(_)) => {
            table.mistake("url_file", "is of no use beside url: leave one out");
            given
        }
        (true, None) => given,
        (false, Some(path)) => match file(&path).and_then(|text| parse(text.trim())) {
            Ok(address) => Some(address),
            Err(message) => {
                table.mistake("url_file", message);
                None
            }
        },
        (false, None) => {
            if !table.was_wrong("url_file") {
                table.mistake("url", "is missing; or url_file, for an address that is a secret");
            }
            None
        }
    }
}

/// Where messages are posted. What is wrong is told without the text, which is mostly a secret.
fn target(text: &str, alertmanager: bool) -> Result<Address, String> {
    if alertmanager {
        let base = exporter_url(text)?;
        let url = Url::parse(&format!("{base}/api/v2/alerts"));
        return url.map(Address).map_err(|error| format!("is not a URL ({error})"));
    }
    let url = Url::parse(text)
        .map_err(|error| format!("is not a URL ({error}): https://HOST/PATH expected"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or password: use token_file or header_files".to_owned());
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{:?} is neither http nor https", url.scheme()));
    }
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
        return Err("has no host".to_owned());
    };
    if is_forbidden_host(host) {
        return Err(format!("{host:?} is a link-local address, which is not asked"));
    }
    Ok(Address(url))
}

/// An address that others are made of.
fn base(text: &str) -> Result<String, String> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.query().is_none() => {
            Ok(url.as_str().trim_end_matches('/').to_owned())
        }
        _ => Err(format!("{text:?} is not the address of a page: https://HOST/PATH expected")),
    }
}

fn headers(table: &mut Reader) -> Vec<(HeaderName, HeaderValue)> {
    let mut all = BTreeMap::new();
    if let Some(path) = table.path("token_file") {
        match read_token_file(&path) {
            Ok(value) => drop(all.insert("authorization".to_owned(), value)),
            Err(message) => table.mistake("token_file", message),
        }
    }
    table.table("header_files", |table| {
        for (name, path) in table.rest() {
            let path = table.file(&path);
            match header_of(&name, &path) {
                Ok((name, value)) => drop(all.insert(name, value)),
                Err(message) => table.mistake(&name, message),
            }
        }
        Some(())
    });
    if all.len() > MAX_HEADERS {
        table.mistake("header_files", format!("{} headers; at most {MAX_HEADERS}", all.len()));
    }
    let parsed = all.into_iter().map(|(name, value)| Some((name.parse().ok()?, value)));
    parsed.flatten().collect()
}

fn header_of(name: &str, path: &Path) -> Result<(String, HeaderValue), String> {
    let parsed: HeaderName = name.parse().map_err(|_| "is not a header's name".to_owned())?;
    let own = [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::HOST, header::CONNECTION];
    if own.contains(&parsed) || parsed == header::TRANSFER_ENCODING {
        return Err("is a header that the poller sets itself".to_owned());
    }
    let text = file(path)?;
    let mut value = HeaderValue::try_from(text.trim())
        .map_err(|_| format!("{} holds no header's value: one line expected", path.display()))?;
    value.set_sensitive(true);
    Ok((parsed.as_str().to_owned(), value))
}

/// The text of a small file; it is never quoted.
fn file(path: &Path) -> Result<String, String> {
    let text = service::files::text(path, MAX_FILE);
    text.map_err(|error| format!("{} {error}", path.display()))
}

#[cfg(test)]
#[path = "receiver_tests.rs"]
mod tests;
