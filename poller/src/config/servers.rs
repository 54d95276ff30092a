//! The servers of the configuration, and what holds for every server wherever it is written.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::HeaderValue;
use reqwest::Url;
use service::config::Reader;
use service::places::is_forbidden_host;
use wire::ServerId;

use crate::client::ClientTls;

/// Most tags of a server.
pub const MAX_TAGS: usize = 32;
/// Most bytes of a tag or of the name of a group.
const MAX_WORD: usize = 64;

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
    /// How it is known for the one it should be; none without TLS.
    pub tls: Option<ClientTls>,
}

pub(super) fn servers(reader: &mut Reader, exporter_tls: &ClientTls) -> Vec<Arc<Target>> {
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
        let own = ClientTls::read(server, "tls");
        if own.is_some() && url.as_deref().is_some_and(|url| !is_https(url)) {
            server.mistake("tls", "is of no use with http://: the url must begin with https://");
        }
        let url = url?;
        let tls = is_https(&url).then(|| own.unwrap_or_default().or(exporter_tls));
        Some(Arc::new(Target { id: id?, url, group, tags, credential: Ok(credential), tls }))
    })
}

/// Where lists of servers are, in Prometheus' own form of them.
pub(super) fn files(reader: &mut Reader) -> Vec<PathBuf> {
    reader
        .paths("server_files", |path| {
            let known = ["json", "yml", "yaml"];
            let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            if !known.contains(&ending) {
                return Err(format!("{}: ends in none of .{}", path.display(), known.join(", .")));
            }
            let folder = path.parent().unwrap_or(Path::new(""));
            if folder.to_string_lossy().contains('*') {
                return Err(format!("{}: only the file's own name may have *", path.display()));
            }
            Ok(())
        })
        .unwrap_or_default()
}

/// Whether an address that [`exporter_url`] gave is asked over TLS.
pub fn is_https(url: &str) -> bool {
    url.starts_with("https://")
}

/// A group or tag: 1 to 64 bytes without control characters or commas, nor spaces at its ends.
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
        "{shown:?} is not allowed: 1 to {MAX_WORD} bytes without commas or control characters, and no \
         spaces at its ends"
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
        "http" | "https" => {}
        other => return Err(format!("{shown:?}: {other:?} is neither http nor https")),
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("holds a query or fragment: http://HOST:PORT expected".to_owned());
    }
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
        return Err(format!("{shown:?} has no host"));
    };
    if is_forbidden_host(host) {
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
    let text = service::files::text(path, MAX)
        .map_err(|error| format!("{shown} {error}: one token expected"))?;
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
