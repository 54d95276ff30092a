//! What an added server may be called, as the command line and HTTP check it alike.

use reqwest::Url;
use wire::{InvalidId, ServerId};

use crate::config::{MAX_TAGS, word};
use crate::store::POLLER;

/// Longest note.
const MAX_NOTE: usize = 1000;

/// A sentence that says what is wrong and what is allowed.
pub type Wrong = String;

/// A server's id. The name under which the poller's own events stand is taken.
///
/// # Errors
/// It is none, or taken.
pub fn checked_id(text: &str) -> Result<ServerId, Wrong> {
    let id: ServerId = text.parse().map_err(|error: InvalidId| error.to_string())?;
    match id.as_str() {
        POLLER => Err(format!("{POLLER:?} is the poller's own name for its events")),
        _ => Ok(id),
    }
}

/// A group; empty for none.
///
/// # Errors
/// It cannot be one.
pub fn group(text: &str) -> Result<String, Wrong> {
    if text.is_empty() { Ok(String::new()) } else { word(text) }
}

/// Tags, sorted, each once.
///
/// # Errors
/// One of them cannot be one, or they are too many.
pub fn tags<'a>(all: impl Iterator<Item = &'a str>) -> Result<Vec<String>, Wrong> {
    let mut tags = all.map(word).collect::<Result<Vec<_>, _>>()?;
    tags.sort();
    tags.dedup();
    match tags.len() {
        0..=MAX_TAGS => Ok(tags),
        count => Err(format!("{count} tags; at most {MAX_TAGS} are allowed")),
    }
}

/// A note: one line, or some.
///
/// # Errors
/// It is too long, or holds what would change the look of a terminal.
pub fn note(text: &str) -> Result<String, Wrong> {
    if text.len() > MAX_NOTE {
        return Err(format!("{} bytes; at most {MAX_NOTE} are allowed", text.len()));
    }
    if text.chars().any(|c| c.is_control() && c != '\n') {
        return Err("control characters are not allowed".to_owned());
    }
    Ok(text.trim().to_owned())
}

/// Whether two addresses are the same exporter's: a token for one is good for the other.
pub fn same_place(one: &str, other: &str) -> bool {
    let place = |text: &str| {
        let url = Url::parse(text).ok()?;
        Some((url.scheme().to_owned(), url.host_str()?.to_owned(), url.port_or_known_default()))
    };
    place(one).is_some() && place(one) == place(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_checked() {
        assert!(checked_id("vm1").is_ok());
        assert!(checked_id("pm2-poller").is_err() && checked_id("a b").is_err());
        assert_eq!(tags(["b", "a", "b"].into_iter()).unwrap(), ["a", "b"]);
        assert!(tags(["a,b"].into_iter()).is_err());
        assert_eq!(group(""), Ok(String::new()));
        assert!(note("\u{1b}[31m").is_err() && note(&"x".repeat(1001)).is_err());
    }

    #[test]
    fn another_host_port_or_scheme_is_another_place() {
        assert!(same_place("http://a:1/x", "http://a:1/y"));
        assert!(same_place("http://a", "http://a:80"));
        for other in ["http://a:2", "https://a:1", "http://b:1", "nonsense"] {
            assert!(!same_place("http://a:1", other), "{other}");
        }
        assert!(!same_place("nonsense", "nonsense"));
    }
}
