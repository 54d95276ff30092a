//! Calls of PM2's methods.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::time::Instant;

use super::{Home, LIST_WITHIN};
use crate::pm2::dump::{self, SaveError};
use crate::pm2::model::Reply;
use crate::pm2::rpc::{CallError, Rpc};

impl Home {
    /// A custom action returned.
    pub(in crate::pm2) fn replied(&self, reply: Reply) {
        // Nobody waits for one that somebody else asked for.
        let _ = self.replies.send(reply);
    }

    /// Runs a custom action of one process and gives what it returns, as JSON.
    ///
    /// # Errors
    /// See [`CallError`]; [`CallError::Timeout`] when the action never returns.
    pub async fn trigger(
        &self,
        pm_id: u32,
        action: &str,
        params: Option<&str>,
        deadline: Duration,
    ) -> Result<String, CallError> {
        let mut replies = self.replies.subscribe();
        let mut message = json!({"id": pm_id, "msg": action});
        if let Some(params) = params {
            message["opts"] = json!(params);
        }
        let until = Instant::now() + deadline;
        self.call("msgProcess", message, deadline).await?;
        loop {
            match tokio::time::timeout_at(until, replies.recv()).await {
                Ok(Ok(reply)) if reply.pm_id == pm_id && &*reply.action == action => {
                    return Ok(reply.json.into());
                }
                Ok(Ok(_) | Err(broadcast::error::RecvError::Lagged(_))) => {}
                Ok(Err(broadcast::error::RecvError::Closed)) | Err(_) => {
                    return Err(CallError::Timeout(deadline));
                }
            }
        }
    }

    /// Saves PM2's list for the next boot; apps named in `gone` were deleted on purpose.
    ///
    /// # Errors
    /// PM2 does not answer, or see [`SaveError`].
    pub async fn save(&self, gone: &[&str]) -> anyhow::Result<()> {
        let list = self.rpc()?.call("getMonitorData", &json!({}), LIST_WITHIN).await?;
        let saved: Result<(), SaveError> = dump::save(&self.path, &list, gone);
        Ok(saved?)
    }

    /// The connection, where there is one.
    pub(crate) fn rpc(&self) -> Result<Arc<Rpc>, CallError> {
        let link = self.link();
        let reason = || link.error_now().unwrap_or_default();
        link.rpc.clone().ok_or_else(|| CallError::Closed(reason()))
    }

    /// Calls one of PM2's methods.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(
        &self,
        method: &str,
        argument: Value,
        deadline: Duration,
    ) -> Result<(), CallError> {
        let rpc = self.rpc()?;
        let result = rpc.call(method, &argument, deadline).await.map(drop);
        if !matches!(result, Err(CallError::Timeout(_) | CallError::Closed(_))) {
            self.spoke();
        }
        result
    }
}
