//! Asking exporters. One client for all: a connection a server is kept open, redirects are not
//! followed, proxies of the environment are not used, and no answer is read past its bound.

use std::error::Error;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, Method, StatusCode, header};
use bytes::{Bytes, BytesMut};
use reqwest::redirect::Policy;

use crate::config::Target;

/// Asks exporters. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client(reqwest::Client);

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
    pub fn new(keep: Duration) -> reqwest::Result<Self> {
        reqwest::Client::builder()
            .user_agent(concat!("pm2-poller/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .no_proxy()
            .http1_only()
            .pool_max_idle_per_host(2)
            .pool_idle_timeout(keep)
            .tcp_keepalive(Duration::from_secs(30))
            .build()
            .map(Self)
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
        let credential =
            target.credential.as_ref().map_err(|why| CallError::Credential(why.clone()))?;
        let mut request = self
            .0
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

/// Reads a body piece by piece, as it comes out of decompression. Dropping the response where
/// it grows too large closes the connection.
async fn read(mut response: reqwest::Response, max: usize) -> Result<Bytes, CallError> {
    let mut body = BytesMut::new();
    while let Some(piece) = response.chunk().await.map_err(told)? {
        if body.len() + piece.len() > max {
            return Err(CallError::TooLarge(max));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// The innermost reason, which says it best: `Connection refused (os error 111)`.
fn told(error: reqwest::Error) -> CallError {
    let error = error.without_url();
    let connect = error.is_connect();
    let mut inner: &dyn Error = &error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    let words: String = inner.to_string().chars().take(300).collect();
    if connect { CallError::Connect(words) } else { CallError::Broken(words) }
}
