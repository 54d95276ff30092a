use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use reqwest::Url;

use super::{CallError, Client, ClientTls, read, told};

/// Of an answer that nobody reads, so many bytes are taken so that the connection can be used
/// again.
const MAX_IGNORED: usize = 64 * 1024;

impl Client {
    /// Posts JSON to somebody who is no exporter, within `time` for all of it. What is answered
    /// beyond status and headers is not looked at.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn post(
        &self,
        url: &Url,
        headers: Vec<(HeaderName, HeaderValue)>,
        tls: Option<&ClientTls>,
        body: Vec<u8>,
        time: Duration,
    ) -> Result<(StatusCode, HeaderMap), CallError> {
        let request = self
            .with(tls)?
            .post(url.clone())
            .headers(HeaderMap::from_iter(headers))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body);
        let start = Instant::now();
        let response = tokio::time::timeout(time, request.send())
            .await
            .map_err(|_| CallError::Timeout(start.elapsed()))?
            .map_err(told)?;
        let (status, headers) = (response.status(), response.headers().clone());
        // One that goes on and on, or stalls, is cut off: what it says is known.
        let rest = read(response, MAX_IGNORED);
        let _ = tokio::time::timeout(time.saturating_sub(start.elapsed()), rest).await;
        Ok((status, headers))
    }
}
