//! An HTTP client that keeps what it was answered for a test to look at.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;
use service::tls::files::{authorities, certificates, private_key};

use crate::contract::Contract;

/// Asks one program, with a token or without.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
    contract: Option<&'static Contract>,
}

/// How a program over TLS is asked.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Who vouches for it.
    pub authority: PathBuf,
    /// The own certificate and its key.
    pub own: Option<(PathBuf, PathBuf)>,
    /// The name its certificate is for, where that is not its address.
    pub name: Option<String>,
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What was asked: `GET /metrics`.
    pub request: String,
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body.
    pub text: String,
}

impl Client {
    /// For a program at `base`: `http://127.0.0.1:10209`.
    ///
    /// # Errors
    /// The client cannot be built.
    pub fn new(base: impl Into<String>) -> anyhow::Result<Self> {
        service::tls::install();
        Self::built(base, reqwest::Client::builder())
    }

    /// For a program that serves TLS: with whom to trust, and the own certificate and key where
    /// it asks for one.
    ///
    /// # Errors
    /// A file is wrong.
    pub fn over_tls(base: impl Into<String>, tls: &Tls) -> anyhow::Result<Self> {
        let roots = authorities(&tls.authority).map_err(anyhow::Error::msg)?;
        let config = rustls::ClientConfig::builder_with_provider(service::tls::provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let config = match &tls.own {
            None => config.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = certificates(cert).map_err(anyhow::Error::msg)?;
                let key = private_key(key).map_err(anyhow::Error::msg)?;
                config.with_client_auth_cert(chain, key)?
            }
        };
        let builder = reqwest::Client::builder().tls_backend_preconfigured(config);
        let base = base.into();
        let Some(name) = &tls.name else { return Self::built(base, builder) };
        let address: SocketAddr = base.rsplit('/').next().unwrap_or_default().parse()?;
        let named = format!("https://{name}:{}", address.port());
        Self::built(named, builder.resolve(name, address))
    }

    fn built(base: impl Into<String>, http: reqwest::ClientBuilder) -> anyhow::Result<Self> {
        // No test is to hang, and the longest wait that the programs grant is 300 s.
        let http = http
            .timeout(Duration::from_secs(330))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self { http, base: base.into(), token: None, contract: None })
    }

    /// Every answer is held against this from now on.
    #[must_use]
    pub fn held_to(self, contract: Option<&'static Contract>) -> Self {
        Self { contract, ..self }
    }

    /// The same, with a bearer token.
    pub fn with_token(&self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self.clone() }
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// A request that a test adds headers or a body to, for [`Client::send`].
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, self.url(path));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// There was no answer, or not all of one.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Answer> {
        let request = request.build()?;
        let name = format!("{} {}", request.method(), request.url());
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let response = self.http.execute(request).await.with_context(|| name.clone())?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = response.text().await.with_context(|| name.clone())?;
        let answer = Answer { request: name, status, headers, text };
        if let Some(contract) = self.contract {
            let kind = answer.header("content-type");
            let held = contract.check(method.as_str(), &path, status, kind, &answer.text);
            #[expect(clippy::panic, reason = "a wait for something else must not swallow it")]
            if let Err(error) = held {
                panic!("{error:#}");
            }
        }
        Ok(answer)
    }

    /// `GET`.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(self.request(Method::GET, path)).await
    }

    /// `GET` of something that must be there.
    ///
    /// # Errors
    /// The answer is not 200, or of another shape.
    pub async fn json<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.get(path).await?.json()
    }

    /// `POST` without a body.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn post(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(self.request(Method::POST, path)).await
    }

    /// `PUT` of JSON.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.send(self.request(Method::PUT, path).json(body)).await
    }

    /// Whether `/healthz` says that the program is alive.
    pub async fn is_healthy(&self) -> bool {
        self.get("/healthz").await.is_ok_and(|answer| answer.status == 200)
    }
}

impl Answer {
    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body of an answer that must be 200.
    ///
    /// # Errors
    /// It is another status.
    pub fn ok(self) -> anyhow::Result<String> {
        anyhow::ensure!(self.status == 200, "{}: {} {}", self.request, self.status, self.text);
        Ok(self.text)
    }

    /// The body of an answer that must be 200, or 202 for what goes on.
    ///
    /// # Errors
    /// It is another status, or not of this shape.
    pub fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        let (request, status, text) = (&self.request, self.status, &self.text);
        anyhow::ensure!(matches!(status, 200..=202), "{request}: {status} {text}");
        serde_json::from_str(text).with_context(|| format!("{request}: {text}"))
    }

    /// The problem of an answer that must be one, of this status and kind.
    ///
    /// # Errors
    /// It is no such problem.
    pub fn problem(&self, status: u16, kind: &str) -> anyhow::Result<wire::Problem> {
        let problem = self.problem_of(status)?;
        anyhow::ensure!(
            problem.kind == kind,
            "{}: expected the kind {kind}, got {}",
            self.request,
            self.text
        );
        Ok(problem)
    }

    /// The problem of an answer that must be one, of this status and any kind.
    ///
    /// # Errors
    /// It is no such problem.
    pub fn problem_of(&self, status: u16) -> anyhow::Result<wire::Problem> {
        let Self { request, text, .. } = self;
        anyhow::ensure!(
            self.status == status,
            "{request}: expected {status}, got {} {text}",
            self.status
        );
        let kind = self.header("content-type");
        anyhow::ensure!(kind == "application/problem+json", "{request}: is {kind:?}: {text}");
        let problem: wire::Problem =
            serde_json::from_str(text).with_context(|| format!("{request}: {text}"))?;
        anyhow::ensure!(problem.status == status && !problem.title.is_empty(), "{text}");
        if status == 401 {
            anyhow::ensure!(self.header("www-authenticate") == "Bearer", "{request}: no challenge");
        }
        Ok(problem)
    }
}
