//! What a page asks an exporter for while somebody waits: little, and not for long.

use std::time::Duration;

use axum::http::Method;
use dashboards::LogLine;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use wire::{Deployment, DeploymentList, ServerId, SlotId};

use crate::app::App;
use crate::client::read;

/// A page does not wait longer for an exporter.
const WITHIN: Duration = Duration::from_secs(3);
/// Most that is read of one answer.
const MOST: usize = 1024 * 1024;
/// Most that is read of a log.
const MOST_LINES: usize = 16 * 1024 * 1024;

/// What a server's exporter answers to a path, or why it does not, in words.
pub(super) async fn text(app: &App, server: &ServerId, path: &str) -> Result<String, String> {
    let member = app.fleet.get(server).ok_or("the server is gone")?;
    let asked = app.client.ask(Method::GET, &member.target, path, None, WITHIN, MOST).await;
    let answer = asked.map_err(|error| error.to_string())?;
    if !answer.status.is_success() {
        return Err(refused(answer.status, &answer.body));
    }
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}

async fn json<T: DeserializeOwned>(app: &App, server: &ServerId, path: &str) -> Result<T, String> {
    let text = text(app, server, path).await?;
    serde_json::from_str(&text).map_err(|error| format!("the exporter's answer: {error}"))
}

/// A slot's deployments, newest first.
pub(super) async fn deployments(
    app: &App,
    server: &ServerId,
    slot: &SlotId,
) -> Result<Vec<Deployment>, String> {
    let path = format!("/api/slots/{slot}/deployments");
    json::<DeploymentList>(app, server, &path).await.map(|list| list.deployments)
}

/// The log of one of them.
pub(super) async fn log(
    app: &App,
    server: &ServerId,
    slot: &SlotId,
    id: &str,
) -> Result<String, String> {
    text(app, server, &format!("/api/slots/{slot}/deployments/{id}/log")).await
}

/// The lines of an app's log, each with the stream and the instance that it comes from.
pub(super) async fn log_lines(
    app: &App,
    server: &ServerId,
    path: &str,
) -> Result<Vec<LogLine>, String> {
    let member = app.fleet.get(server).ok_or("the server is gone")?;
    let read = async {
        let opened = app.client.open(&member.target, path, "text/event-stream", WITHIN).await;
        let answer = opened.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = read(answer, MOST_LINES).await.map_err(|error| error.to_string())?;
        if status.is_success() {
            Ok(events(&String::from_utf8_lossy(&body)))
        } else {
            Err(refused(status, &body))
        }
    };
    tokio::time::timeout(WITHIN, read).await.unwrap_or_else(|_| Err("it took too long".into()))
}

/// Server-sent events to lines. What is none of them is left out.
fn events(text: &str) -> Vec<LogLine> {
    #[derive(Deserialize)]
    struct Sent {
        instance_id: u32,
        stream: String,
        line: String,
    }
    text.lines()
        .filter_map(|line| serde_json::from_str::<Sent>(line.strip_prefix("data: ")?).ok())
        .map(|sent| LogLine {
            instance: sent.instance_id,
            error: sent.stream == "err",
            text: sent.line,
        })
        .collect()
}

/// Why an exporter did not do as asked, in words.
fn refused(status: axum::http::StatusCode, body: &[u8]) -> String {
    let problem: Option<wire::Problem> = serde_json::from_slice(body).ok();
    match problem {
        Some(problem) => problem.detail,
        None => format!("the exporter answers {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_know_their_stream_and_instance() {
        let text = ": alive\n\nevent: err\ndata: {\"instance_id\":2,\"stream\":\"err\",\
                    \"line\":\"no: data\"}\n\nevent: out\ndata: nonsense\n\n";
        let line = LogLine { instance: 2, error: true, text: "no: data".into() };
        assert_eq!(events(text), [line]);
    }
}
