//! Prometheus' form of a list of targets, in JSON or YAML, read as servers:
//!
//! ```json
//! [{"targets": ["10.0.0.11:10209"], "labels": {"server": "vm1", "group": "eu", "tags": "prod,db"}}]
//! ```
//!
//! A target is the address of one exporter. Of the labels, `server` is its id (without it, the
//! host, and the port where that is not 10209), `group`, `tags` (with commas between) and `note`
//! are what they say, and any other becomes the tag `name=value`. `__scheme__` and
//! `__metrics_path__` mean what they mean to Prometheus, `__token_file__` names a file with the
//! token, below the folder of the list. Other names that begin with `__` are left out, as
//! Prometheus does. So what `/sd/prometheus` answers can be read here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};
use std::sync::Arc;

use serde::Deserialize;
use wire::ServerId;

use super::entry;
use crate::client::ClientTls;
use crate::config::{Target, exporter_url, is_https, read_token_file};

/// Most servers of one file, and most mistakes told of it.
const MOST: usize = 20_000;
const MISTAKES: usize = 10;
/// The exporter's own port: an id need not name it.
const PORT: &str = "10209";

/// A server of a file.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    /// How it is polled.
    pub(super) target: Arc<Target>,
    /// For people.
    pub(super) note: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, Label>,
}

/// JSON has numbers where people mean texts.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Label {
    Text(String),
    Number(i64),
    Truth(bool),
}

impl Label {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
            Self::Truth(truth) => truth.to_string(),
        }
    }
}

/// Reads a file that stands in `folder`.
///
/// # Errors
/// All that is wrong with it, one a line, up to some lines.
pub(super) fn parse(
    text: &str,
    json: bool,
    folder: &Path,
    tls: &ClientTls,
) -> Result<Vec<Listed>, String> {
    let groups: Vec<Group> = if json {
        serde_json::from_str(text).map_err(|error| shape(&error.to_string()))?
    } else {
        let value = service::yaml::texts(text)?.ok_or("is empty: a list of groups is expected")?;
        value.try_into().map_err(|error: _| shape(&error.to_string()))?
    };
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    let mut mistakes = Vec::new();
    for (number, group) in groups.into_iter().enumerate() {
        let many = group.targets.len() > 1;
        let labels: BTreeMap<String, String> =
            group.labels.into_iter().map(|(name, text)| (name, text.into_text())).collect();
        if many && labels.contains_key("server") {
            mistakes.push(format!("[{number}].labels.server: names one, the group has several"));
            continue;
        }
        for (at, address) in group.targets.iter().enumerate() {
            match listed(address, &labels, folder, tls) {
                Err(message) => mistakes.push(format!("[{number}].{message}")),
                Ok(listed) if !seen.insert(listed.target.id.clone()) => mistakes.push(format!(
                    "[{number}].targets[{at}]: the server {:?} is there twice",
                    listed.target.id.as_str()
                )),
                Ok(listed) => all.push(listed),
            }
        }
        if all.len() > MOST {
            mistakes.push(format!("more than {MOST} servers"));
        }
        if mistakes.len() >= MISTAKES {
            break;
        }
    }
    if mistakes.is_empty() { Ok(all) } else { Err(mistakes.join("\n")) }
}

fn shape(error: &str) -> String {
    let error: String = error.chars().take(300).collect();
    format!("is not [{{\"targets\": [\"HOST:PORT\"], \"labels\": {{}}}}]: {error}")
}

fn listed(
    address: &str,
    labels: &BTreeMap<String, String>,
    folder: &Path,
    tls: &ClientTls,
) -> Result<Listed, String> {
    let label = |name: &str| labels.get(name).map(String::as_str).filter(|text| !text.is_empty());
    let of = |name: &'static str| move |message: String| format!("labels.{name}: {message}");
    let shown: String = address.chars().take(200).collect();
    let split = address.rsplit_once(':').filter(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok() && !address.contains(['/', '@', '?', '#'])
    });
    let Some((host, port)) = split else {
        return Err(format!("targets: {shown:?} is not HOST:PORT"));
    };
    let path = label("__metrics_path__").unwrap_or("/metrics");
    let Some(base) = path.strip_suffix("/metrics") else {
        let message = format!("{path:?} does not end in /metrics");
        return Err(of("__metrics_path__")(message));
    };
    let scheme = label("__scheme__").unwrap_or("http");
    let url = exporter_url(&format!("{scheme}://{address}{base}"))
        .map_err(|message| format!("targets: {message}"))?;
    let id = match label("server") {
        Some(id) => entry::checked_id(id).map_err(of("server"))?,
        None => id_of(host, port).map_err(|message| format!("targets: {shown:?}: {message}"))?,
    };
    let own = label("tags").unwrap_or_default().split(',').map(str::trim);
    let mut tags: Vec<String> = own.filter(|tag| !tag.is_empty()).map(str::to_owned).collect();
    let known = ["server", "group", "tags", "note"];
    let other = |(name, value): &(&String, &String)| {
        !name.starts_with("__") && !known.contains(&name.as_str()) && !value.is_empty()
    };
    tags.extend(labels.iter().filter(other).map(|(name, value)| format!("{name}={value}")));
    let credential = label("__token_file__").map(|name| token(folder, name)).transpose();
    let target = Target {
        group: entry::group(label("group").unwrap_or_default()).map_err(of("group"))?,
        tags: entry::tags(tags.iter().map(String::as_str)).map_err(of("tags"))?,
        credential: Ok(credential.map_err(of("__token_file__"))?),
        tls: is_https(&url).then(|| tls.clone()),
        id,
        url,
    };
    let note = entry::note(label("note").unwrap_or_default()).map_err(of("note"))?;
    Ok(Listed { target: Arc::new(target), note })
}

/// `10.0.0.11` for `10.0.0.11:10209`, `vm1-8080` for `vm1:8080`.
fn id_of(host: &str, port: &str) -> Result<ServerId, String> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let host: String = host.trim_matches(['[', ']']).chars().map(plain).collect();
    let host = host.trim_start_matches(['-', '_', '.']);
    entry::checked_id(&if port == PORT { host.to_owned() } else { format!("{host}-{port}") })
}

/// A list may come from elsewhere: it names no file beyond its own folder.
fn token(folder: &Path, name: &str) -> Result<axum::http::HeaderValue, String> {
    let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    if !inside {
        return Err(format!("{name:?} is not a path below the folder of the list"));
    }
    read_token_file(&folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, json: bool) -> Result<Vec<Listed>, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("vm1.token"), "pm2x_abc\n").unwrap();
        parse(text, json, folder.path(), &ClientTls::default())
    }

    #[test]
    fn labels_mean_what_the_module_says() {
        let text = r#"[
            {"targets": ["10.0.0.11:10209", "vm2:8080", "[::1]:10209"],
             "labels": {"group": "eu", "env": "prod", "__meta_x": "y", "job": ""}},
            {"targets": ["vm3:443"], "labels": {"server": "three", "tags": ",db,prod,",
             "note": "old", "__scheme__": "https", "__metrics_path__": "/x/metrics",
             "__token_file__": "vm1.token"}}]"#;
        let all = read(text, true).unwrap();
        let ids: Vec<&str> = all.iter().map(|it| it.target.id.as_str()).collect();
        assert_eq!(ids, ["10.0.0.11", "vm2-8080", "1", "three"]);
        assert_eq!(all[0].target.url, "http://10.0.0.11:10209");
        assert_eq!(
            (all[0].target.group.as_str(), &all[0].target.tags[..]),
            ("eu", &["env=prod".to_owned()][..])
        );
        let three = &all[3];
        assert_eq!(three.target.url, "https://vm3/x");
        assert_eq!(three.target.tags, ["db", "prod"]);
        assert_eq!(three.note, "old");
        assert!(three.target.tls.is_some());
        assert!(three.target.credential.as_ref().unwrap().is_some());
    }

    #[test]
    fn yaml_says_the_same() {
        let text = "- targets: ['vm1:10209']\n  labels:\n    group: eu\n    rack: 07\n    \
                    node: 1.10\n    none:\n    on: True\n- targets: []\n";
        let all = read(text, false).unwrap();
        assert_eq!((all.len(), &*all[0].target.tags.join(" ")), (1, "node=1.10 on=True rack=07"));
    }

    #[test]
    fn what_is_wrong_is_told_by_place() {
        for (text, word) in [
            ("{}", "targets"),
            ("[{\"targets\": [\"a:1\"], \"label\": {}}]", "label"),
            ("[{\"targets\": [\"a\"]}]", "[0].targets: \"a\" is not HOST:PORT"),
            ("[{\"targets\": [\"http://a:1\"]}]", "HOST:PORT"),
            ("[{\"targets\": [\"169.254.169.254:80\"]}]", "link-local"),
            (
                "[{\"targets\": [\"a:1\", \"a:1\"]}]",
                "[0].targets[1]: the server \"a-1\" is there twice",
            ),
            ("[{\"targets\": [\"a:1\", \"b:1\"], \"labels\": {\"server\": \"x\"}}]", "names one"),
            (
                "[{\"targets\": [\"a:1\"], \"labels\": {\"server\": \"pm2-poller\"}}]",
                "labels.server",
            ),
            (
                "[{\"targets\": [\"a:1\"], \"labels\": {\"__token_file__\": \"../x\"}}]",
                "below the folder",
            ),
            (
                "[{\"targets\": [\"a:1\"], \"labels\": {\"__token_file__\": \"/etc/passwd\"}}]",
                "below",
            ),
            ("[{\"targets\": [\"a:1\"], \"labels\": {\"__scheme__\": \"ftp\"}}]", "ftp"),
            ("[{\"targets\": [\"a:1\"], \"labels\": {\"env\": \"a,b\"}}]", "labels.tags"),
        ] {
            let message = read(text, true).unwrap_err();
            assert!(message.contains(word), "{text}: {message}");
        }
        assert!(read("", false).unwrap_err().contains("empty"));
    }
}
