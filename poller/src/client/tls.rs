//! Whom the poller takes for an exporter, and what it shows of itself: settings of `https`
//! servers, and the verifier that holds to them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use service::config::Reader;
use service::tls::certificate;
use service::tls::files::{Watched, authorities, certificates, private_key};
use sha2::{Digest, Sha256};
use wire::Time;

/// SHA-256 of a certificate in DER, as `openssl x509 -fingerprint -sha256` shows it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// That of a certificate in DER.
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits: Vec<u32> = text
            .chars()
            .filter(|letter| *letter != ':')
            .map(|letter| letter.to_digit(16))
            .collect::<Option<_>>()
            .unwrap_or_default();
        let bytes: Vec<u8> = digits
            .chunks_exact(2)
            .filter_map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok())
            .collect();
        match (digits.len(), <[u8; 32]>::try_from(bytes)) {
            (64, Ok(bytes)) => Ok(Self(bytes)),
            _ => Err(format!(
                "{:?} is no SHA-256 fingerprint: 64 hexadecimal digits, with or without colons",
                text.chars().take(100).collect::<String>()
            )),
        }
    }
}

/// `tls` of a server, or `[exporter_tls]` for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientTls {
    /// Who may vouch for the exporter; without it and a fingerprint, the system's authorities.
    pub ca_file: Option<PathBuf>,
    /// The one certificate that is taken, whoever vouches for it and whatever name it has.
    pub fingerprint: Option<Fingerprint>,
    /// The name that its certificate must be for, where that is not the URL's host.
    pub server_name: Option<String>,
    /// The poller's own certificate, where exporters ask for one.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
}

impl ClientTls {
    /// Reads a table of that name, and the files that it names.
    pub fn read(reader: &mut Reader, name: &'static str) -> Option<Self> {
        reader.table(name, |reader| {
            let settings = Self {
                ca_file: reader.path("ca_file"),
                fingerprint: reader.value("fingerprint"),
                server_name: reader.parsed("server_name", |text| {
                    ServerName::try_from(text)
                        .map(|_| text.to_owned())
                        .map_err(|_| format!("{text:?} is neither a host name nor an address"))
                }),
                cert_file: reader.path("cert_file"),
                key_file: reader.path("key_file"),
            };
            if let Some(Err(message)) = settings.ca_file.as_deref().map(authorities) {
                reader.mistake("ca_file", message);
            }
            if settings.fingerprint.is_some() {
                for (key, there) in [
                    ("ca_file", settings.ca_file.is_some()),
                    ("server_name", settings.server_name.is_some()),
                ] {
                    if there {
                        reader.mistake(key, "is of no use beside a fingerprint: leave one out");
                    }
                }
            }
            match (&settings.cert_file, &settings.key_file) {
                (Some(_), None) => reader.mistake("key_file", "is missing beside cert_file"),
                (None, Some(_)) => reader.mistake("cert_file", "is missing beside key_file"),
                (Some(cert), Some(key)) => {
                    if let Err(message) = certificates(cert) {
                        reader.mistake("cert_file", message);
                    } else if let Err(message) = private_key(key) {
                        reader.mistake("key_file", message);
                    } else if let Err(message) = own_key(cert.clone(), key.clone()) {
                        reader.mistake("cert_file", message);
                    }
                }
                (None, None) => {}
            }
            Some(settings)
        })
    }

    /// The same for one server, with what it leaves open as for all of them.
    #[must_use]
    pub fn or(self, all: &Self) -> Self {
        let all = all.clone();
        let own_trust = self.ca_file.is_some() || self.fingerprint.is_some();
        let trust = if own_trust {
            (self.ca_file, self.fingerprint)
        } else {
            (all.ca_file, all.fingerprint)
        };
        let (ca_file, fingerprint) = trust;
        let own_identity = self.cert_file.is_some();
        let identity = if own_identity {
            (self.cert_file, self.key_file)
        } else {
            (all.cert_file, all.key_file)
        };
        let (cert_file, key_file) = identity;
        Self {
            ca_file,
            fingerprint,
            server_name: self.server_name.or(all.server_name),
            cert_file,
            key_file,
        }
    }

    /// What the connections of a client hold to.
    ///
    /// # Errors
    /// A file has become wrong.
    pub(super) fn config(&self) -> Result<ClientConfig, String> {
        let verifier = Verifier {
            trust: match &self.fingerprint {
                Some(fingerprint) => Trust::One(fingerprint.clone()),
                None => Trust::Authorities(self.authorities()?),
            },
            server_name: self.server_name.clone(),
            provider: provider(),
        };
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        // A session that is taken up again shows no certificate: one that has expired, or whose authority
        // is trusted no longer, would go on.
        config.resumption = Resumption::disabled();
        if let (Some(cert), Some(key)) = (&self.cert_file, &self.key_file) {
            let (own, key_path) = (cert.clone(), key.clone());
            let watched = Watched::new(vec![cert.clone(), key.clone()], move || {
                own_key(own.clone(), key_path.clone())
            })?;
            config.client_auth_cert_resolver = Arc::new(Own(watched));
        }
        Ok(config)
    }

    fn authorities(&self) -> Result<Watched<Arc<WebPkiServerVerifier>>, String> {
        let files: Vec<PathBuf> = self.ca_file.iter().cloned().collect();
        let from = self.ca_file.clone();
        Watched::new(files, move || {
            let roots = match &from {
                Some(path) => authorities(path)?,
                None => of_the_system(),
            };
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
                .build()
                .map_err(|error| format!("no authority to trust: {error}"))
        })
    }
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(service::tls::provider))
}

fn of_the_system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn own_key(cert: PathBuf, key: PathBuf) -> Result<Arc<CertifiedKey>, String> {
    CertifiedKey::from_der(certificates(&cert)?, private_key(&key)?, &provider())
        .map(Arc::new)
        .map_err(|error| format!("{} and its key cannot be used: {error}", cert.display()))
}

/// Shows the poller's own certificate to exporters that ask for one.
#[derive(Debug)]
struct Own(Watched<Arc<CertifiedKey>>);

impl ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.get()))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// When the certificates that exporters showed end being good, by the exporters' addresses: several
/// of a host are several.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(Arc<Mutex<BTreeMap<String, Time>>>);

impl Seen {
    pub(super) fn get(&self, url: &str) -> Option<Time> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(url).copied()
    }

    /// Of a connection that was just made to `url`.
    pub(super) fn put(&self, url: &str, connection: &rustls::ClientConnection) {
        let shown = connection.peer_certificates().and_then(<[_]>::first);
        if let Some(time) = shown.and_then(|der| certificate::not_after(der)) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(url.to_owned(), time);
        }
    }
}

#[derive(Debug)]
enum Trust {
    One(Fingerprint),
    Authorities(Watched<Arc<WebPkiServerVerifier>>),
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    server_name: Option<String>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.trust {
            Trust::One(expected) if Fingerprint::of(end_entity) == *expected => {
                Ok(ServerCertVerified::assertion())
            }
            Trust::One(_) => Err(Error::General(format!(
                "the certificate's fingerprint is {}, not the one expected",
                Fingerprint::of(end_entity)
            ))),
            Trust::Authorities(watched) => {
                let own = self.server_name.as_deref().map(ServerName::try_from).transpose();
                let own = own.map_err(|_| CertificateError::NotValidForName)?;
                let name = own.as_ref().unwrap_or(server_name);
                watched.get().verify_server_cert(
                    end_entity,
                    intermediates,
                    name,
                    ocsp_response,
                    now,
                )
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_leaves_open_is_as_for_all() {
        let path = |name: &str| Some(PathBuf::from(name));
        let one: Fingerprint = "ab".repeat(32).parse().unwrap();
        let all = ClientTls {
            ca_file: path("ca"),
            server_name: Some("fleet".to_owned()),
            cert_file: path("cert"),
            key_file: path("key"),
            ..ClientTls::default()
        };
        assert_eq!(ClientTls::default().or(&all), all);
        let pinned = ClientTls { fingerprint: Some(one.clone()), ..ClientTls::default() };
        let seen = pinned.or(&all);
        assert_eq!((seen.ca_file, seen.fingerprint), (None, Some(one)), "one trust, not two");
        assert_eq!((seen.cert_file, seen.key_file), (path("cert"), path("key")));
        let own = ClientTls { cert_file: path("c"), key_file: path("k"), ..ClientTls::default() };
        let seen = own.or(&all);
        assert_eq!(
            (seen.ca_file, seen.cert_file, seen.key_file),
            (path("ca"), path("c"), path("k"))
        );
    }

    #[test]
    fn a_fingerprint_is_read_as_tools_write_it() {
        let plain = "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef";
        let colons: Vec<String> = plain
            .as_bytes()
            .chunks(2)
            .map(|pair| String::from_utf8_lossy(pair).into_owned())
            .collect();
        let read: Fingerprint = plain.parse().unwrap();
        assert_eq!(colons.join(":").parse::<Fingerprint>().unwrap(), read);
        assert_eq!(read.to_string(), plain.to_lowercase());
        for wrong in ["", "0123", &plain[1..], &format!("{plain}00"), &plain.replace('0', "x")] {
            assert!(wrong.parse::<Fingerprint>().is_err(), "{wrong}");
        }
    }
}
