//! Servers added at the command line.

use std::path::PathBuf;

use sqlx::query;
use wire::{ServerId, Time};

use super::audit::{self, NewAudit};
use super::{Result, Store, StoreError};

/// A server as it was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredServer {
    /// Its id.
    pub id: ServerId,
    /// Where its exporter is.
    pub url: String,
    /// The file that holds the token for its exporter.
    pub token_file: Option<PathBuf>,
    /// Its group; empty for none.
    pub group: String,
    /// Its tags.
    pub tags: Vec<String>,
}

impl Store {
    /// Adds a server, with a line in the audit.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when one of that id is there.
    pub async fn add_server(&self, server: StoredServer, audit: NewAudit) -> Result<()> {
        self.writer
            .run(move |writing| {
                Box::pin(async move {
                    let connection = &mut writing.connection;
                    let tags = serde_json::to_string(&server.tags)
                        .map_err(|error| StoreError::Failed(error.to_string()))?;
                    let token_file =
                        server.token_file.as_ref().map(|path| path.to_string_lossy().into_owned());
                    let done = query(
                        "INSERT INTO registry (server, url, token_file, server_group, tags, added_at) \
                         VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    )
                    .bind(server.id.as_str())
                    .bind(&server.url)
                    .bind(token_file)
                    .bind(&server.group)
                    .bind(tags)
                    .bind(Time::now().as_millis())
                    .execute(&mut *connection)
                    .await?;
                    if done.rows_affected() == 0 {
                        return Err(StoreError::Exists(format!(
                            "a server with the id {:?} is there already",
                            server.id.as_str()
                        )));
                    }
                    audit::insert(connection, audit).await
                })
            })
            .await
    }

    /// Every server that was added, by id.
    ///
    /// # Errors
    /// The read failed.
    pub async fn servers(&self) -> Result<Vec<StoredServer>> {
        let rows: Vec<(String, String, Option<String>, String, String)> = sqlx::query_as(
            "SELECT server, url, token_file, server_group, tags FROM registry ORDER BY server",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter()
            .map(|(id, url, token_file, group, tags)| {
                let wrong = |error: String| StoreError::Failed(format!("server {id}: {error}"));
                Ok(StoredServer {
                    id: id.parse().map_err(|error: wire::InvalidId| wrong(error.to_string()))?,
                    tags: serde_json::from_str(&tags).map_err(|error| wrong(error.to_string()))?,
                    url,
                    token_file: token_file.map(PathBuf::from),
                    group,
                })
            })
            .collect()
    }
}
