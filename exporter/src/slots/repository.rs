//! Addresses of repositories: what may be fetched, and what of it may be shown.

use std::fmt;
use std::str::FromStr;

use super::config::Settings;

/// Why an address is refused. No message shows the address: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is not an address at all.
    #[error("is not an address: https://host/path, ssh://user@host/path or user@host:path")]
    Malformed,
    /// Another way to fetch.
    #[error("only https and ssh repositories are fetched{}", if *.0 { ", and file:// ones" } else { "" })]
    Protocol(bool),
    /// The host is not on the list.
    #[error("host {0:?} is not in [slots] allowed_hosts")]
    Host(String),
    /// A password for ssh.
    #[error("a password does not belong into an ssh address: use a key")]
    SshPassword,
}

/// A repository that may be fetched.
#[derive(Clone, PartialEq, Eq)]
pub struct Repository {
    /// The address without credentials.
    url: String,
    /// `user:password` of an https address, decoded.
    credentials: Option<String>,
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl Repository {
    /// Parses an address and decides whether it may be fetched.
    ///
    /// # Errors
    /// See [`Unfit`].
    pub fn parse(text: &str, settings: &Settings) -> Result<Self, Unfit> {
        let file = settings.allow_file_repositories;
        if text.len() > 1024 || !text.bytes().all(|byte| (0x21..0x7f).contains(&byte)) {
            return Err(Unfit::Malformed);
        }
        let repository = match text.split_once("://") {
            Some(("https", rest)) => Self::https(rest)?,
            Some(("ssh", rest)) => Self::ssh(rest)?,
            Some(("file", path)) if file => {
                return Ok(Self { url: format!("file://{}", path_of(path)?), credentials: None });
            }
            Some(_) => return Err(Unfit::Protocol(file)),
            // `ext::sh -c …` and its like name a program to run.
            None if text.contains("::") => return Err(Unfit::Protocol(file)),
            None => Self::scp_like(text)?,
        };
        let host = repository.1;
        let allowed = &settings.allowed_hosts;
        if !allowed.is_empty() && !allowed.iter().any(|known| known.eq_ignore_ascii_case(&host)) {
            return Err(Unfit::Host(host));
        }
        Ok(repository.0)
    }

    fn https(rest: &str) -> Result<(Self, String), Unfit> {
        let (authority, path) = rest.split_once('/').ok_or(Unfit::Malformed)?;
        let (credentials, place) = match authority.rsplit_once('@') {
            Some((credentials, place)) => (Some(credentials), place),
            None => (None, authority),
        };
        let host = host_of(place)?;
        let path = path_of(&format!("/{path}"))?.to_owned();
        let credentials = credentials.map(decode).transpose()?;
        Ok((Self { url: format!("https://{place}{path}"), credentials }, host))
    }

    fn ssh(rest: &str) -> Result<(Self, String), Unfit> {
        let (authority, path) = rest.split_once('/').ok_or(Unfit::Malformed)?;
        let (user, place) = user_of(authority)?;
        let host = host_of(place)?;
        let path = path_of(&format!("/{path}"))?.to_owned();
        Ok((Self { url: format!("ssh://{user}{place}{path}"), credentials: None }, host))
    }

    fn scp_like(text: &str) -> Result<(Self, String), Unfit> {
        let (authority, path) = text.split_once(':').ok_or(Unfit::Malformed)?;
        // Without a user it could as well be a path or a drive.
        let (user, place) = user_of(authority)?;
        if user.is_empty() {
            return Err(Unfit::Malformed);
        }
        let host = host_of(place)?;
        let path = path_of(path)?;
        Ok((Self { url: format!("{user}{host}:{path}"), credentials: None }, host))
    }

    /// What git is given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The header that carries the credentials, where there are any. It is passed to git in
    /// its environment: arguments can be seen by every user of the machine.
    pub fn authorization(&self) -> Option<String> {
        let credentials = self.credentials.as_ref()?;
        Some(format!("Authorization: Basic {}", base64(credentials.as_bytes())))
    }

    /// The texts that must never be shown.
    pub fn secrets(&self) -> Vec<String> {
        let Some(credentials) = &self.credentials else { return Vec::new() };
        let mut secrets = vec![base64(credentials.as_bytes()), credentials.clone()];
        secrets.extend(credentials.split(':').filter(|part| part.len() >= 4).map(str::to_owned));
        secrets
    }
}

fn user_of(authority: &str) -> Result<(String, &str), Unfit> {
    let Some((user, place)) = authority.rsplit_once('@') else {
        return Ok((String::new(), authority));
    };
    if user.contains(':') {
        return Err(Unfit::SshPassword);
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if user.is_empty() || user.starts_with('-') || !user.bytes().all(plain) {
        return Err(Unfit::Malformed);
    }
    Ok((format!("{user}@"), place))
}

/// The host of `host` or `host:port`.
fn host_of(place: &str) -> Result<String, Unfit> {
    let (host, port) = match place.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (place, None),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    let is_host = (1..=253).contains(&host.len())
        && host.bytes().all(plain)
        && host.starts_with(|first: char| first.is_ascii_alphanumeric());
    let is_port = port.is_none_or(|port| u16::from_str(port).is_ok_and(|port| port > 0));
    if !is_host || !is_port {
        return Err(Unfit::Malformed);
    }
    Ok(host.to_ascii_lowercase())
}

fn path_of(path: &str) -> Result<&str, Unfit> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./~+%@:".contains(&byte);
    let climbs = path.split('/').any(|part| part == "..");
    if path.len() < 2 || path.starts_with('-') || climbs || !path.bytes().all(plain) {
        return Err(Unfit::Malformed);
    }
    Ok(path)
}

/// Undoes `%40` and its like.
fn decode(text: &str) -> Result<String, Unfit> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        match (digit(rest.next()), digit(rest.next())) {
            (Some(high), Some(low)) => bytes.push((high * 16 + low) as u8),
            _ => return Err(Unfit::Malformed),
        }
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.chars().any(char::is_control))
        .ok_or(Unfit::Malformed)
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let number = chunk.iter().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = LETTERS[(number >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// A branch or tag, as git would take it as a name and never as anything else.
///
/// # Errors
/// What it may be.
pub fn branch(text: &str) -> Result<&str, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./+@#".contains(&byte);
    let parts = || text.split('/');
    let fit = (1..=200).contains(&text.len())
        && text.bytes().all(plain)
        && !text.starts_with(['-', '+'])
        && !text.contains("..")
        && !text.contains("@{")
        && text != "@"
        && parts().all(|part| {
            !part.is_empty()
                && !part.starts_with('.')
                && !part.ends_with(".lock")
                && !part.ends_with('.')
        });
    if fit {
        return Ok(text);
    }
    let shown: String = text.chars().take(100).collect();
    Err(format!("branch: {shown:?} is not a branch's name"))
}

/// A whole commit id.
///
/// # Errors
/// What it may be.
pub fn commit(text: &str) -> Result<String, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits && matches!(text.len(), 40 | 64) {
        return Ok(text.to_ascii_lowercase());
    }
    let shown: String = text.chars().take(100).collect();
    Err(format!(
        "commit: {shown:?} is not a whole commit id of 40 digits; a part cannot be fetched"
    ))
}

/// A folder within a repository.
///
/// # Errors
/// What it may be.
pub fn subdir(text: &str) -> Result<&str, String> {
    let trimmed = text.trim_matches('/');
    let fit = text.len() <= 400
        && !text.starts_with('/')
        && !trimmed.is_empty()
        && !text.chars().any(|letter| letter.is_control() || letter == '\\')
        && trimmed.split('/').all(|part| !matches!(part, "" | "." | ".." | ".git"));
    if fit {
        return Ok(trimmed);
    }
    let shown: String = text.chars().take(100).collect();
    Err(format!("subdir: {shown:?} is not a folder within the repository"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Repository, Unfit> {
        Repository::parse(text, &Settings::default())
    }

    #[test]
    fn credentials_are_used_and_never_shown() {
        let repository = parse("https://user:can%40ary@host.example:8443/a/b.git").unwrap();
        assert_eq!(repository.to_string(), "https://host.example:8443/a/b.git");
        assert!(!format!("{repository:?}").contains("can"));
        let header = repository.authorization().unwrap();
        assert_eq!(header, "Authorization: Basic dXNlcjpjYW5AYXJ5");
        for (plain, coded) in [("a", "YQ=="), ("ab", "YWI="), ("abc", "YWJj"), ("", "")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn https_ssh_and_scp_like_addresses_are_taken() {
        for right in [
            "https://github.com/acme/shop.git",
            "https://git.example/~anna/x",
            "ssh://git@host:2222/acme/shop.git",
            "git@github.com:acme/shop.git",
        ] {
            assert_eq!(parse(right).unwrap().to_string(), right);
        }
        let settings = Settings { allow_file_repositories: true, ..Settings::default() };
        assert!(Repository::parse("file:///srv/x.git", &settings).is_ok());
    }

    #[test]
    fn hosts_off_the_list_are_refused_however_they_are_written() {
        let settings = Settings { allowed_hosts: vec!["github.com".into()], ..Settings::default() };
        assert!(Repository::parse("https://GitHub.com/a/b", &settings).is_ok());
        for wrong in [
            "https://github.com.evil.example/a/b",
            "https://github.com@evil.example/a/b",
            "ssh://git@evil.example/github.com/a",
            "git@evil.example:github.com/a",
        ] {
            assert!(matches!(Repository::parse(wrong, &settings), Err(Unfit::Host(_))), "{wrong}");
        }
    }

    #[test]
    fn thirty_hostile_addresses_and_names_are_refused() {
        for wrong in [
            "",
            "-",
            "--upload-pack=touch /tmp/x",
            "-u:x",
            "ext::sh -c id",
            "ext::sh%20-c%20id",
            "fd::3",
            "http://host/x",
            "git://host/x",
            "ftp://host/x",
            "file:///etc",
            "/etc",
            ".",
            "../x",
            "https://",
            "https:///x",
            "https://host",
            "https://-host/x",
            "https://host/x y",
            "https://host/x\n",
            "https://host/../x",
            "https://ho$t/x",
            "ssh://-oProxyCommand=id/x",
            "ssh://git:pw@host/x",
            "ssh://git@-host/x",
            "git@-host:x/y",
            "-git@host:x/y",
            "git@host:-x",
            "git@host:../x",
            "host:x/y",
            "https://host:99999/x",
            "https://host/x?y=$(id)",
            "https://host/x;id",
            "h\0st://x",
            "HTTPS://host/x",
            "https://[::1]/x",
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        for wrong in [
            "",
            "-x",
            "--upload-pack=x",
            "a..b",
            "a b",
            "a:b",
            "a~1",
            "a^",
            "refs/.x",
            "a.lock",
            "@{u}",
            "@",
            "a\nb",
            "/a",
            "a/",
            "*",
        ] {
            assert!(branch(wrong).is_err(), "{wrong:?}");
        }
        for wrong in
            ["", "/etc", "..", "a/../..", "a/./b", "a//b", ".git", "a/.git", "a\0", "a\\b", "/"]
        {
            assert!(subdir(wrong).is_err(), "{wrong:?}");
        }
        for wrong in ["", "HEAD", "abc", "-".repeat(40).as_str()] {
            assert!(commit(wrong).is_err(), "{wrong:?}");
        }
    }
}
