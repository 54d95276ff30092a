//! Names that a program is asked by. Somebody who reads without a credential must use one that is
//! its own: a page on the web can make a browser ask 127.0.0.1 under the page's own name (DNS
//! rebinding), and would read the answers.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, header};

/// Which names those are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    /// Whether names that are not known are refused.
    strict: bool,
    allowed: Vec<String>,
}

impl Hosts {
    /// Of a program that listens there: on loopback, names of loopback and those `allowed`;
    /// elsewhere any name, unless some are `allowed`: then these only.
    pub fn new(listen: SocketAddr, allowed: Vec<String>) -> Self {
        let strict = listen.ip().is_loopback() || !allowed.is_empty();
        Self { strict, allowed }
    }

    /// What is wrong with the name that the request was sent to, if anything. Addresses are known: no
    /// page on the web has one for its name and the program's as well.
    pub fn refusal(&self, headers: &HeaderMap) -> Option<String> {
        if !self.strict {
            return None;
        }
        let mut said = headers.get_all(header::HOST).iter();
        // Browsers always say it.
        let first = said.next()?;
        if said.next().is_some() {
            return Some("Host: is there more than once".to_owned());
        }
        if first.to_str().is_ok_and(|host| self.is_known(host)) {
            return None;
        }
        let shown: String = String::from_utf8_lossy(first.as_bytes()).chars().take(100).collect();
        Some(format!(
            "Host: {shown:?} is none of this program's names: put it into allowed_hosts, or send a token"
        ))
    }

    fn is_known(&self, host: &str) -> bool {
        let name = name_of(host).trim_end_matches('.').to_ascii_lowercase();
        name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.allowed.contains(&name)
    }
}

/// Without the port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit())
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

/// A name for `allowed_hosts`, without a port.
///
/// # Errors
/// It is none.
pub fn allowed(text: &str) -> Result<String, String> {
    let good = (1..=253).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if good {
        return Ok(text.trim_end_matches('.').to_ascii_lowercase());
    }
    let shown: String = text.chars().take(64).collect();
    Err(format!("{shown:?} is no name of a host, such as fleet.example.org (without a port)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_on_the_web_is_not_known_by_its_name() {
        let known = |listen: &str, allowed: &[&str], host: &str| {
            let allowed = allowed.iter().map(|name| super::allowed(name).unwrap()).collect();
            let headers = HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]);
            Hosts::new(listen.parse().unwrap(), allowed).refusal(&headers).is_none()
        };
        for host in ["127.0.0.1", "127.0.0.1:10210", "localhost", "LOCALHOST:1", "[::1]:9", "::1"] {
            assert!(known("127.0.0.1:10210", &[], host), "{host}");
        }
        for host in ["evil.example", "evil.example:10210", "localhost.evil.example", "", "a:b"] {
            assert!(!known("127.0.0.1:10210", &[], host), "{host}");
            assert!(known("0.0.0.0:10210", &[], host), "{host}");
            assert!(!known("0.0.0.0:10210", &["fleet.example.org"], host), "{host}");
        }
        for host in ["fleet.example.org", "Fleet.Example.Org.:443"] {
            assert!(known("127.0.0.1:1", &["fleet.example.org"], host), "{host}");
        }
        let mut two_headers = HeaderMap::new();
        two_headers.append(header::HOST, "localhost".parse().unwrap());
        two_headers.append(header::HOST, "evil.example".parse().unwrap());
        assert!(
            Hosts::new("127.0.0.1:1".parse().unwrap(), Vec::new()).refusal(&two_headers).is_some()
        );
        for wrong in ["", "a b", "a:1", "http://a", "ä"] {
            assert!(allowed(wrong).is_err(), "{wrong}");
        }
    }
}
