//! Asking for the same thing again and again, and how long it took.

use std::time::{Duration, Instant};

use anyhow::Context;
use e2e::bench::measure::Samples;
use reqwest::{Method, header};

/// Between two questions: what is measured is an answer under load, and not what asking as fast
/// as possible leads to.
const PAUSE: Duration = Duration::from_millis(15);

/// Asks one program.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    http: reqwest::Client,
    base: String,
    token: String,
}

/// How long answers took, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Took {
    /// To the first byte.
    pub(crate) first: Samples,
    /// To the last.
    pub(crate) whole: Samples,
    /// Bytes of the last answer's body.
    pub(crate) bytes: usize,
}

impl Asker {
    pub(crate) fn new(base: String, token: &str) -> anyhow::Result<Self> {
        service::tls::install();
        let http = reqwest::Client::builder()
            .no_proxy()
            .no_gzip()
            .timeout(Duration::from_secs(60))
            .build()?;
        Ok(Self { http, base, token: token.to_owned() })
    }

    /// A request with the token.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token)
    }

    /// `GET`, so many times.
    pub(crate) async fn get(&self, path: &str, times: usize, gzip: bool) -> anyhow::Result<Took> {
        let mut took = Took::default();
        // The first is not counted: it may open a connection.
        for time in 0..=times {
            let mut request = self.request(Method::GET, path);
            if gzip {
                request = request.header(header::ACCEPT_ENCODING, "gzip");
            }
            let start = Instant::now();
            let answer = request.send().await?;
            let first = start.elapsed();
            let (status, headers) = (answer.status(), answer.headers().clone());
            let body = answer.bytes().await?;
            let whole = start.elapsed();
            anyhow::ensure!(status == 200, "{path}: {status} {}", String::from_utf8_lossy(&body));
            let packed = headers.contains_key(header::CONTENT_ENCODING);
            anyhow::ensure!(packed == gzip, "{path}: packed: {packed}");
            if time > 0 {
                took.first.push(first.as_secs_f64() * 1e3);
                took.whole.push(whole.as_secs_f64() * 1e3);
            }
            took.bytes = body.len();
            tokio::time::sleep(PAUSE).await;
        }
        Ok(took)
    }

    /// One request that must be answered 200, in milliseconds.
    pub(crate) async fn timed(&self, request: reqwest::RequestBuilder) -> anyhow::Result<f64> {
        let start = Instant::now();
        let answer = request.send().await?;
        let status = answer.status();
        let body = answer.text().await.context("a body that broke off")?;
        let took = start.elapsed().as_secs_f64() * 1e3;
        anyhow::ensure!(status == 200, "{status} {body}");
        tokio::time::sleep(PAUSE).await;
        Ok(took)
    }
}
