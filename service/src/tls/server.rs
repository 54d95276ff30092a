//! The listener's side of TLS: its certificate, and whom it lets in.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme, version,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use wire::Time;

use super::files::{Watched, authorities, certificates, private_key};
use super::{certificate, provider};
use crate::config::Reader;

/// Whether clients are asked for a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// Not at all.
    #[default]
    None,
    /// One that is shown must be good.
    Request,
    /// Nobody gets in without a good one.
    Require,
}

impl FromStr for ClientAuth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "request" => Ok(Self::Request),
            "require" => Ok(Self::Require),
            _ => Err(format!("{text:?} is not known: none, request or require")),
        }
    }
}

/// The oldest version that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl FromStr for MinVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "1.2" => Ok(Self::Tls12),
            "1.3" => Ok(Self::Tls13),
            _ => Err(format!("{text:?} is not spoken: 1.2 or 1.3")),
        }
    }
}

/// `[tls]` of both programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// The certificate and those between it and the authority, in PEM.
    pub cert_file: PathBuf,
    /// Its key, in PEM.
    pub key_file: PathBuf,
    /// Who may vouch for clients.
    pub client_ca_file: Option<PathBuf>,
    /// Whether clients are asked for a certificate.
    pub client_auth: ClientAuth,
    /// Which names of clients are let in: one of them must stand in the certificate. Empty:
    /// everyone whom the authority vouches for.
    pub client_allowed_sans: Vec<String>,
    /// The oldest version that is spoken.
    pub min_version: MinVersion,
}

impl ServerTls {
    /// Reads `[tls]`, and the files it names, so that what is wrong with them is told too.
    pub fn read(reader: &mut Reader) -> Option<Self> {
        reader.table("tls", |reader| {
            let cert_file = reader.path("cert_file");
            let key_file = reader.path("key_file");
            for (key, missing) in
                [("cert_file", cert_file.is_none()), ("key_file", key_file.is_none())]
            {
                if missing && !reader.was_wrong(key) {
                    reader.mistake(key, "is missing");
                }
            }
            let client_ca_file = reader.path("client_ca_file");
            let client_auth = reader.parsed("client_auth", str::parse);
            let client_allowed_sans =
                reader.list("client_allowed_sans", |text| Ok(text.to_owned())).unwrap_or_default();
            let min_version = reader.parsed("min_version", str::parse).unwrap_or_default();
            // Whoever names an authority for clients means that they need its certificate.
            let asked =
                if client_ca_file.is_some() { ClientAuth::Require } else { ClientAuth::None };
            let settings = Self {
                cert_file: cert_file?,
                key_file: key_file?,
                client_ca_file,
                client_auth: client_auth.unwrap_or(asked),
                client_allowed_sans,
                min_version,
            };
            for (key, message) in settings.mistakes() {
                reader.mistake(key, message);
            }
            Some(settings)
        })
    }

    /// Everything that is wrong with the settings and the files that they name, by key.
    pub fn mistakes(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let mut tell = |key, result: Result<(), String>| {
            if let Err(message) = result {
                found.push((key, message));
            }
        };
        tell("cert_file", certificates(&self.cert_file).map(drop));
        tell("key_file", private_key(&self.key_file).map(drop));
        match &self.client_ca_file {
            Some(path) => {
                tell("client_ca_file", authorities(path).map(drop));
                if self.client_auth == ClientAuth::None {
                    tell("client_auth", Err("is none, although there is a client_ca_file".into()));
                }
            }
            None if self.client_auth != ClientAuth::None => {
                tell(
                    "client_auth",
                    Err("needs a client_ca_file to know good certificates by".into()),
                );
            }
            None if !self.client_allowed_sans.is_empty() => {
                tell("client_allowed_sans", Err("needs a client_ca_file".into()));
            }
            None => {}
        }
        if found.is_empty()
            && let Err(message) = self.made()
        {
            found.push(("cert_file", message));
        }
        found
    }

    fn files(&self) -> Vec<PathBuf> {
        let own = [self.cert_file.clone(), self.key_file.clone()];
        own.into_iter().chain(self.client_ca_file.clone()).collect()
    }

    fn made(&self) -> Result<Made, String> {
        let chain = certificates(&self.cert_file)?;
        let expires_at = chain.iter().filter_map(|it| certificate::not_after(it)).min();
        let key = private_key(&self.key_file)?;
        let versions: &[_] = match self.min_version {
            MinVersion::Tls12 => &[&version::TLS13, &version::TLS12],
            MinVersion::Tls13 => &[&version::TLS13],
        };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(|error| error.to_string())?;
        let builder = match &self.client_ca_file {
            None => builder.with_no_client_auth(),
            Some(path) => builder.with_client_cert_verifier(self.verifier(path.clone())?),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            format!("{} and its key cannot be used: {error}", self.cert_file.display())
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if self.client_ca_file.is_some() {
            // A session that is taken up again shows no certificate: one that has expired would go on.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Made { config: Arc::new(config), expires_at })
    }

    fn verifier(&self, authorities_file: PathBuf) -> Result<Arc<dyn ClientCertVerifier>, String> {
        let roots = Arc::new(authorities(&authorities_file)?);
        let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
        if self.client_auth != ClientAuth::Require {
            builder = builder.allow_unauthenticated();
        }
        let inner =
            builder.build().map_err(|error| format!("{}: {error}", authorities_file.display()))?;
        if self.client_allowed_sans.is_empty() {
            return Ok(inner);
        }
        let allowed = self.client_allowed_sans.iter().map(|name| normal(name)).collect();
        Ok(Arc::new(NamedClients { inner, allowed }))
    }
}

/// DNS names do not tell small letters from large ones; addresses have several spellings.
fn normal(name: &str) -> String {
    match name.parse::<std::net::IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) if name.contains(['@', '/', ':']) => name.to_owned(),
        Err(_) => name.to_ascii_lowercase(),
    }
}

/// Lets in those of the authority's clients whose certificate is for one of some names.
#[derive(Debug)]
struct NamedClients {
    inner: Arc<dyn ClientCertVerifier>,
    allowed: Vec<String>,
}

impl ClientCertVerifier for NamedClients {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        let names = certificate::names(end_entity);
        if names.iter().any(|name| self.allowed.contains(name)) {
            return Ok(verified);
        }
        tracing::debug!(?names, "a client's certificate is for none of the names allowed");
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

struct Made {
    config: Arc<ServerConfig>,
    expires_at: Option<Time>,
}

/// Makes connections into TLS connections, with the files as they are by then.
pub struct Acceptor(Watched<Made>);

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Acceptor").field(&self.0).finish()
    }
}

impl Acceptor {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(settings: ServerTls) -> Result<Self, String> {
        Watched::new(settings.files(), move || settings.made()).map(Self)
    }

    /// The acceptor for a program's settings, if it has any.
    ///
    /// # Errors
    /// The files have become wrong since the settings were read.
    pub fn of(settings: Option<ServerTls>) -> anyhow::Result<Option<Arc<Self>>> {
        let acceptor = settings
            .map(Self::new)
            .transpose()
            .map_err(|message| anyhow::anyhow!("tls: {message}"))?;
        Ok(acceptor.map(Arc::new))
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// The client is not let in, or speaks something else.
    pub async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        TlsAcceptor::from(Arc::clone(&self.0.get().config)).accept(stream).await
    }

    /// When the certificate, or one between it and the authority, ends being good.
    pub fn expires_at(&self) -> Option<Time> {
        self.0.get().expires_at
    }

    /// Whether the files as they are now are in use.
    pub fn up_to_date(&self) -> bool {
        self.0.get();
        self.0.mistake().is_none()
    }
}
