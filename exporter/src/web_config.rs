//! Prometheus' own file for exporters, `web.config.file`: TLS and users, by
//! <https://prometheus.io/docs/prometheus/latest/configuration/https/>. What of it is not
//! understood here is told, never passed over.

use std::path::Path;

use service::config::Reader;
use service::tls::ServerTls;
use service::tls::server::{ClientAuth, MinVersion};

/// What such a file asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebConfig {
    /// `tls_server_config`.
    pub tls: Option<ServerTls>,
    /// `basic_auth_users`: names, and bcrypt's hashes of their passwords.
    pub users: Vec<(String, String)>,
    /// There is nothing in it.
    pub is_blank: bool,
}

impl WebConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// Everything that is wrong with it, a line each, by key.
    pub fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{shown} cannot be read: {error}"))?;
        // A user without a hash must not vanish: where nobody is left, everybody may read.
        let table = service::yaml::table_with_empty(&text, "basic_auth_users")
            .map_err(|why| format!("{shown} {why}"))?;
        let is_blank = table.is_empty();
        let mut reader = Reader::new(table, "", shown.to_string());
        reader.set_base(path.parent().unwrap_or(Path::new("")));
        let config = Self {
            tls: reader.table("tls_server_config", tls),
            users: reader.table("basic_auth_users", users).unwrap_or_default(),
            is_blank,
        };
        // Only HTTP/1.1 is spoken, and headers are set already; neither is a reason not to start.
        reader.table("http_server_config", |reader| {
            reader.truth("http2", true);
            reader.table("headers", |reader| {
                reader.rest();
                Some(())
            })
        });
        reader.finish(Some(config)).map_err(|mistakes| mistakes.to_string())
    }
}

fn tls(reader: &mut Reader) -> Option<ServerTls> {
    let cert_file = reader.path("cert_file");
    let key_file = reader.path("key_file");
    let client_ca_file = reader.path("client_ca_file");
    let asked = reader.parsed("client_auth_type", |text| match text {
        "" | "NoClientCert" => Ok(ClientAuth::None),
        "VerifyClientCertIfGiven" => Ok(ClientAuth::Request),
        "RequireAndVerifyClientCert" => Ok(ClientAuth::Require),
        // Certificates that nobody checks are worth nothing.
        _ => Err(format!(
            "{text:?} is not understood: NoClientCert, VerifyClientCertIfGiven or \
             RequireAndVerifyClientCert"
        )),
    });
    let client_allowed_sans =
        reader.list("client_allowed_sans", |text| Ok(text.to_owned())).unwrap_or_default();
    let min_version = reader.parsed("min_version", |text| match text {
        "TLS12" => Ok(MinVersion::Tls12),
        "TLS13" => Ok(MinVersion::Tls13),
        _ => Err(format!("{text:?} is not spoken: TLS12 or TLS13")),
    });
    reader.parsed("max_version", |text| match text {
        "TLS13" => Ok(()),
        _ => Err(format!("{text:?} is not understood: only TLS13")),
    });
    // rustls has good ciphers and curves only, and in a good order.
    reader.truth("prefer_server_cipher_suites", true);
    let any = |text: &str| Ok(text.to_owned());
    reader.list("cipher_suites", any);
    reader.list("curve_preferences", any);
    for (key, missing) in [("cert_file", cert_file.is_none()), ("key_file", key_file.is_none())] {
        if missing && !reader.was_wrong(key) {
            reader.mistake(key, "is missing");
        }
    }
    let settings = ServerTls {
        cert_file: cert_file?,
        key_file: key_file?,
        client_ca_file,
        client_auth: asked.unwrap_or_default(),
        client_allowed_sans,
        min_version: min_version.unwrap_or_default(),
    };
    for (key, message) in settings.mistakes() {
        reader.mistake(if key == "client_auth" { "client_auth_type" } else { key }, message);
    }
    Some(settings)
}

fn users(reader: &mut Reader) -> Option<Vec<(String, String)>> {
    let users = reader.rest();
    for (name, hash) in &users {
        // $2y$10$ and 53 letters; the hash is not quoted.
        let parts: Vec<&str> = hash.split('$').collect();
        let good = match parts[..] {
            ["", version, cost, rest] => {
                ["2a", "2b", "2x", "2y"].contains(&version)
                    && cost.parse::<u8>().is_ok_and(|cost| (4..=16).contains(&cost))
                    && rest.len() == 53
            }
            _ => false,
        };
        if !good {
            reader.mistake(
                name,
                "is not a bcrypt hash of cost 4 to 16, as 'htpasswd -nBC 10 NAME' prints it",
            );
        }
    }
    Some(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<WebConfig, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.yml");
        std::fs::write(&path, text).unwrap();
        WebConfig::read(&path)
    }

    #[test]
    fn users_are_read() {
        let hash = bcrypt::hash("secret", 4).unwrap();
        let config = read(&format!("basic_auth_users:\n  prom: {hash}\n")).unwrap();
        assert_eq!(config.users, [("prom".to_owned(), hash)]);
        assert_eq!(config.tls, None);
        assert_eq!(read("").unwrap(), WebConfig { is_blank: true, ..WebConfig::default() });
        assert_eq!(read("basic_auth_users:\n").unwrap().users, []);
    }

    /// Who fills a template in may have nothing to fill in.
    #[test]
    fn a_user_without_a_hash_is_a_mistake() {
        for empty in ["", " ~", " ''", " null"] {
            let wrong = read(&format!("basic_auth_users:\n  prom:{empty}\n")).unwrap_err();
            let told = ["basic_auth_users.prom (", "is not a bcrypt hash"];
            assert!(told.iter().all(|part| wrong.contains(part)), "{wrong}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_told_by_key() {
        let text = read(
            "tls_server_config:\n  cert_file: nowhere.pem\n  client_auth_type: RequireAnyClientCert\n\
             \x20 min_version: TLS10\n  cert: canary\nbasic_auth_users:\n  bob: canary\nother: 1\n",
        )
        .unwrap_err();
        for part in [
            "tls_server_config.client_auth_type",
            "RequireAnyClientCert",
            "tls_server_config.min_version",
            "tls_server_config.key_file",
            "tls_server_config.cert (",
            "basic_auth_users.bob",
            "htpasswd",
            "other (",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("canary"), "{text}");
    }
}
