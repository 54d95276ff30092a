//! `[[relay]]`: applications that serve Prometheus pages of their own.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::Uri;
use service::config::Reader;
use service::places::is_forbidden;
use wire::AppName;

use super::HomePaths;

/// Most pages.
const MOST: usize = 64;

/// A page that is relayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// Whose it is.
    pub app: AppName,
    /// In which PM2, by its directory, where several have the app.
    pub pm2_home: Option<String>,
    /// Which of its instances, where that is known.
    pub instance_id: Option<u32>,
    /// The host to connect to: an address, or a name.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// The path and the query.
    pub path: String,
    /// What it is called in labels and the log: without the query, which may hold a secret.
    pub target: String,
    /// How long all of it may take.
    pub timeout: Duration,
    /// Most series of it.
    pub max_series: usize,
}

pub(super) fn read(reader: &mut Reader, homes: Option<&HomePaths>) -> Vec<Relay> {
    let mut seen: Vec<String> = Vec::new();
    let all = reader.tables("relay", |reader| {
        let app = reader.value::<AppName>("app");
        let allow_remote = reader.truth("allow_remote", false);
        let address = reader.parsed("url", |text| address(text, allow_remote));
        let pm2_home = reader.parsed("pm2_home", |text| {
            let path: PathBuf = text.into();
            let known = homes.is_none_or(|homes| homes.all().any(|home| home == path));
            // As it stands in labels.
            let same = path.components().collect::<PathBuf>().display().to_string();
            known.then_some(same).ok_or_else(|| format!("{text:?} is not one of pm2_homes"))
        });
        let instance_id = reader.value::<u32>("instance_id");
        let timeout = reader.duration(
            "timeout",
            Duration::from_millis(500),
            Duration::from_millis(10)..=Duration::from_secs(10),
        );
        let max_series = reader.parsed("max_series", |text| {
            let count = text.parse().ok().filter(|count| (1..=100_000).contains(count));
            count.ok_or_else(|| format!("{text:?} is not 1 to 100000"))
        });
        for (key, missing) in [("app", app.is_none()), ("url", address.is_none())] {
            if missing && !reader.was_wrong(key) {
                reader.mistake(key, "is missing");
            }
        }
        let (app, (host, port, path)) = (app?, address?);
        let shown = path.split('?').next().unwrap_or_default();
        let target = match host.contains(':') {
            true => format!("[{host}]:{port}{shown}"),
            false => format!("{host}:{port}{shown}"),
        };
        if seen.contains(&target) {
            reader.mistake("url", format!("{target} is relayed already"));
            return None;
        }
        seen.push(target.clone());
        let max_series = max_series.unwrap_or(2_000);
        Some(Relay { app, pm2_home, instance_id, host, port, path, target, timeout, max_series })
    });
    if all.len() > MOST {
        reader.mistake("relay", format!("names {} pages, at most {MOST}", all.len()));
    }
    all
}

/// Host, port and path of a page. What is wrong is told without the address: it may hold a secret.
fn address(text: &str, allow_remote: bool) -> Result<(String, u16, String), String> {
    let uri: Uri = text.parse().map_err(|_| "is not an address, http://127.0.0.1:9464/metrics")?;
    if uri.scheme_str() != Some("http") {
        return Err("is not an http:// address".to_owned());
    }
    let authority = uri.authority().ok_or("has no host")?;
    if authority.as_str().contains('@') {
        return Err("holds a user or a password, which are not sent".to_owned());
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let loopback = match host.parse::<IpAddr>() {
        Ok(address) if is_forbidden(address) => {
            return Err(format!("{host} is a link-local address, where machines keep secrets"));
        }
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost",
    };
    if !loopback && !allow_remote {
        return Err(format!(
            "{host} is not this machine's loopback; allow_remote = true allows it"
        ));
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok((host, authority.port_u16().unwrap_or(80), path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_asked_unless_more_is_allowed() {
        for (text, expected) in [
            ("http://127.0.0.1:9464/metrics", Some(("127.0.0.1", 9464, "/metrics"))),
            ("http://localhost/m?x=1", Some(("localhost", 80, "/m?x=1"))),
            ("http://[::1]:3000", Some(("::1", 3000, "/"))),
            ("http://127.9.9.9:1/", Some(("127.9.9.9", 1, "/"))),
            ("http://10.0.0.1/metrics", None),
            ("http://example.org/metrics", None),
            ("http://localhost.example.org/metrics", None),
            ("https://127.0.0.1/metrics", None),
            ("http://user:secret@127.0.0.1/metrics", None),
            ("/metrics", None),
            ("", None),
        ] {
            let found = address(text, false);
            let found = found.as_ref().ok().map(|(host, port, path)| (&**host, *port, &**path));
            assert_eq!(found, expected, "{text}");
        }
        assert!(address("http://10.0.0.1/metrics", true).is_ok());
        assert!(address("http://169.254.169.254/latest", true).is_err());
        assert!(address("http://[::ffff:169.254.169.254]/", true).is_err());
        let wrong = address("http://user:canary@127.0.0.1/metrics", false).unwrap_err();
        assert!(!wrong.contains("canary"), "{wrong}");
    }
}
