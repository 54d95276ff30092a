//! Asking exporters. One client for all: a connection a server is kept open, redirects are not
//! followed, proxies of the environment are not used, and no answer is read past its bound.

mod body;
mod line;
mod post;
mod resolve;
mod tls;

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, Method, StatusCode, header};
use bytes::{Bytes, BytesMut};
use reqwest::redirect::Policy;
use wire::Time;

use crate::config::Target;

pub use line::Line;
pub use tls::{ClientTls, Fingerprint};

/// What this program calls itself.
const AGENT: &str = concat!("pm2-poller/", env!("CARGO_PKG_VERSION"));
/// A connection that is quiet for so long is looked at whether there is still somebody.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Asks exporters. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    plain: reqwest::Client,
    /// One for each way of telling who is an exporter.
    encrypted: Arc<Mutex<HashMap<ClientTls, Encrypted>>>,
    seen: tls::Seen,
    keep: Duration,
    /// Stands in for all connections.
    #[cfg(test)]
    simulated: Option<crate::simulation::network::Network>,
}

#[derive(Clone, Debug)]
struct Encrypted {
    config: Arc<rustls::ClientConfig>,
    client: reqwest::Client,
}

/// An exporter's answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, decompressed.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No connection came about: nothing was asked.
    #[error("{0}")]
    Connect(String),
    /// The time was over. It may have been asked.
    #[error("no answer within {:.1} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// The answer is larger than allowed.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The connection broke, or what came is not HTTP. It may have been asked.
    #[error("{0}")]
    Broken(String),
    /// There should be a token, and there is none.
    #[error("{0}")]
    Credential(String),
}

impl CallError {
    /// Whether the exporter may have heard of it.
    pub fn may_have_been_sent(&self) -> bool {
        !matches!(self, Self::Connect(_) | Self::Credential(_))
    }
}

impl Client {
    /// `keep` is how long a quiet connection stays open.
    ///
    /// # Errors
    /// The client cannot be built.
    pub fn new(keep: Duration) -> anyhow::Result<Self> {
        let (plain, seen) = (build(keep, nobody()?)?, tls::Seen::default());
        Ok(Self {
            plain,
            encrypted: Arc::default(),
            seen,
            keep,
            #[cfg(test)]
            simulated: None,
        })
    }

    /// One whose exporters are simulated.
    #[cfg(test)]
    pub(crate) fn simulated(network: crate::simulation::network::Network) -> anyhow::Result<Self> {
        Ok(Self { simulated: Some(network), ..Self::new(Duration::ZERO)? })
    }

    /// The client for a server.
    fn of(&self, target: &Target) -> Result<reqwest::Client, CallError> {
        self.with(target.tls.as_ref())
    }

    /// The client for whoever is known in that way; in the clear without any.
    fn with(&self, tls: Option<&ClientTls>) -> Result<reqwest::Client, CallError> {
        match tls {
            None => Ok(self.plain.clone()),
            Some(tls) => self.encrypted(tls, |it| it.client.clone()),
        }
    }

    /// How a connection to whoever is known in that way is made.
    fn encryption(&self, tls: &ClientTls) -> Result<Arc<rustls::ClientConfig>, CallError> {
        self.encrypted(tls, |it| Arc::clone(&it.config))
    }

    fn encrypted<T>(&self, tls: &ClientTls, of: impl Fn(&Encrypted) -> T) -> Result<T, CallError> {
        let mut all = self.encrypted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(tls) {
            return Ok(of(known));
        }
        let config = tls.config().map_err(CallError::Credential)?;
        let client = build(self.keep, config.clone())
            .map_err(|error| CallError::Credential(format!("no TLS: {error}")))?;
        let new = Encrypted { config: Arc::new(config), client };
        let value = of(&new);
        all.insert(tls.clone(), new);
        Ok(value)
    }

    /// When the certificate that a server showed last ends being good.
    pub fn certificate_expires_at(&self, target: &Target) -> Option<Time> {
        target.tls.as_ref()?;
        self.seen.get(&target.url)
    }

    /// Asks `path` (with its query) of `target`, within `time` for all of it: connecting,
    /// sending, headers, body.
    ///
    /// # Errors
    /// There is no whole answer.
    pub async fn ask(
        &self,
        method: Method,
        target: &Target,
        path: &str,
        body: Option<Vec<u8>>,
        time: Duration,
        max: usize,
    ) -> Result<Answer, CallError> {
        #[cfg(test)]
        if let Some(network) = &self.simulated {
            let asked = network.ask(method, target, path, body);
            let late = |_| Err(CallError::Timeout(time));
            return tokio::time::timeout(time, asked).await.unwrap_or_else(late);
        }
        let credential =
            target.credential.as_ref().map_err(|why| CallError::Credential(why.clone()))?;
        let mut request = self
            .of(target)?
            .request(method, format!("{}{path}", target.url))
            .header(header::ACCEPT, "application/json");
        if let Some(credential) = credential {
            request = request.header(header::AUTHORIZATION, credential.clone());
        }
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        }
        let start = Instant::now();
        let answer = async {
            let response = request.send().await.map_err(told)?;
            let (status, headers) = (response.status(), response.headers().clone());
            Ok(Answer { status, headers, body: read(response, max).await? })
        };
        tokio::time::timeout(time, answer)
            .await
            .unwrap_or_else(|_| Err(CallError::Timeout(start.elapsed())))
    }
}

fn build(keep: Duration, tls: rustls::ClientConfig) -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .user_agent(AGENT)
        .redirect(Policy::none())
        .no_proxy()
        .dns_resolver(Arc::new(resolve::Resolver))
        .http1_only()
        .pool_max_idle_per_host(2)
        .pool_idle_timeout(keep)
        .tcp_keepalive(TCP_KEEPALIVE)
        .tls_backend_preconfigured(tls)
        .build()
}

/// Trusts nobody: for the client of servers without TLS, which never shakes hands.
fn nobody() -> Result<rustls::ClientConfig, rustls::Error> {
    Ok(rustls::ClientConfig::builder_with_provider(service::tls::provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth())
}

/// An answer whose body is still to come.
pub type Coming = reqwest::Response;

impl Client {
    /// Asks `path` of `target` and gives what it answers as soon as its headers are there,
    /// within `time`; the body is the caller's to read and to bound.
    ///
    /// # Errors
    /// There are no headers.
    pub async fn open(
        &self,
        target: &Target,
        path: &str,
        accept: &'static str,
        time: Duration,
    ) -> Result<Coming, CallError> {
        let credential =
            target.credential.as_ref().map_err(|why| CallError::Credential(why.clone()))?;
        let mut request =
            self.of(target)?.get(format!("{}{path}", target.url)).header(header::ACCEPT, accept);
        if let Some(credential) = credential {
            request = request.header(header::AUTHORIZATION, credential.clone());
        }
        let start = Instant::now();
        match tokio::time::timeout(time, request.send()).await {
            Ok(answer) => answer.map_err(told),
            Err(_) => Err(CallError::Timeout(start.elapsed())),
        }
    }
}

/// Reads a body piece by piece, as it comes out of decompression. Dropping the response where
/// it grows too large closes the connection.
///
/// # Errors
/// It is larger than `max` bytes, or breaks off.
pub async fn read(mut response: Coming, max: usize) -> Result<Bytes, CallError> {
    let mut body = BytesMut::new();
    while let Some(piece) = response.chunk().await.map_err(told)? {
        if body.len() + piece.len() > max {
            return Err(CallError::TooLarge(max));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

fn told(error: reqwest::Error) -> CallError {
    let error = error.without_url();
    let connect = error.is_connect();
    let words = innermost(&error);
    if connect { CallError::Connect(words) } else { CallError::Broken(words) }
}

/// The innermost reason, which says it best: `Connection refused (os error 111)`.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    let words: String = inner.to_string().chars().take(300).collect();
    // rustls says of plain HTTP only that it is corrupt.
    if words.contains("InvalidContentType") {
        return "what answers there does not speak TLS: is its address http://?".to_owned();
    }
    words
}
