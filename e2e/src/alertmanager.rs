//! A real Alertmanager, and what it notifies.

use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::{Json, Router};
use serde_json::Value;

use crate::client::Answer;
use crate::folder::Folder;
use crate::foreign::Foreign;
use crate::grafana::quick_alertmanager;
use crate::port::Port;
use crate::wait::{SOON, wait_until};

/// A message to a receiver: where it was posted to, and its body.
pub type Message = (String, Value);

/// An Alertmanager that runs, with the receivers that it notifies; killed on drop.
#[derive(Debug)]
pub struct Alertmanager {
    program: Foreign,
    messages: Arc<Mutex<Vec<Message>>>,
    receiver: tokio::task::JoinHandle<()>,
}

async fn take(
    State(messages): State<Arc<Mutex<Vec<Message>>>>,
    uri: Uri,
    Json(body): Json<Value>,
) -> StatusCode {
    messages.lock().unwrap_or_else(PoisonError::into_inner).push((uri.to_string(), body));
    StatusCode::OK
}

impl Alertmanager {
    /// One with the configuration that is shipped, in a hurry: see [`quick_alertmanager`].
    ///
    /// # Errors
    /// It is not installed, or does not become ready within 20 s.
    pub async fn start() -> anyhow::Result<Self> {
        let messages: Arc<Mutex<Vec<Message>>> = Arc::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let receivers = format!("http://{}", listener.local_addr()?);
        let router = Router::new().fallback(take).with_state(Arc::clone(&messages));
        let receiver = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        let (folder, port) = (Folder::new()?, Port::free()?);
        let configuration = folder.write("alertmanager.yml", &quick_alertmanager(&receivers)?)?;
        let mut command = Command::new("prometheus-alertmanager");
        command
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={}", port.address()))
            .args(["--cluster.listen-address=", "--log.level=warn"]);
        let ready = |answer: &Answer| answer.status == 200;
        let program = Foreign::start(command, (folder, port), "/-/ready", ready).await?;
        Ok(Self { program, messages, receiver })
    }

    /// `127.0.0.1:9093`
    pub fn address(&self) -> String {
        self.program.address()
    }

    /// Everything that its receivers were told so far.
    pub fn messages(&self) -> Vec<Message> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a message that `accept` likes, and gives that.
    ///
    /// # Errors
    /// None came within 90 s; the error has those that did.
    pub async fn wait_for(
        &self,
        what: &str,
        accept: impl Fn(&str, &Value) -> bool,
    ) -> anyhow::Result<Value> {
        wait_until(what, SOON, async || {
            let found = self.messages().into_iter().find(|(uri, body)| accept(uri, body));
            found.map(|(_, body)| body)
        })
        .await
        .with_context(|| format!("its messages: {:#?}", self.messages()))
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        self.receiver.abort();
    }
}
