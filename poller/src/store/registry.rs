//! Servers that were added, over HTTP or at the command line; and which servers ever were.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sqlx::query;
use sqlx::sqlite::SqliteConnection;
use wire::{ServerId, State, Time};

use super::audit::{self, NewAudit};
use super::queue;
use super::{Result, Store, StoreError};

/// Most servers that may be added.
const MOST: i64 = 20_000;

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
    /// For people.
    pub note: String,
}

/// A server that is registered somewhere, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Its id.
    pub server: ServerId,
    /// Where its exporter was last.
    pub url: String,
    /// Its group; empty for none.
    pub group: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// For people.
    pub note: String,
    /// Where it was registered.
    pub origin: String,
    /// Since when it is not registered any more.
    pub retired_at: Option<Time>,
}

impl Store {
    /// Adds a server, with a line in the audit.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when one of that id is there, or there are too many.
    pub async fn add_server(&self, server: StoredServer, audit: NewAudit) -> Result<()> {
        self.writer
            .run(move |writing| {
                Box::pin(async move {
                    let connection = &mut writing.connection;
                    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM registry")
                        .fetch_one(&mut *connection)
                        .await?;
                    if count >= MOST {
                        return Err(StoreError::Exists(format!(
                            "{count} servers are there already: no more are taken"
                        )));
                    }
                    let done = query(
                        "INSERT INTO registry \
                         (server, url, token_file, server_group, tags, note, added_at) \
                         VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    )
                    .bind(server.id.as_str())
                    .bind(&server.url)
                    .bind(file(&server))
                    .bind(&server.group)
                    .bind(json(&server.tags)?)
                    .bind(&server.note)
                    .bind(Time::now().as_millis())
                    .execute(&mut *connection)
                    .await?;
                    if done.rows_affected() == 0 {
                        return Err(StoreError::Exists(format!(
                            "a server with the id {:?} is there already",
                            server.id.as_str()
                        )));
                    }
                    audit::insert(writing, audit).await
                })
            })
            .await
    }

    /// Changes an added server as a whole, with a line in the audit. `false` when it is not as
    /// `before` says, or gone: nothing is changed then.
    ///
    /// # Errors
    /// The write failed.
    pub async fn change_server(
        &self,
        before: StoredServer,
        after: StoredServer,
        audit: NewAudit,
    ) -> Result<bool> {
        self.writer
            .run(move |writing| {
                Box::pin(async move {
                    let connection = &mut writing.connection;
                    let done = query(
                        "UPDATE registry \
                         SET url = ?, token_file = ?, server_group = ?, tags = ?, note = ? \
                         WHERE server = ? AND url = ? AND token_file IS ? AND server_group = ? \
                         AND tags = ? AND note = ?",
                    )
                    .bind(&after.url)
                    .bind(file(&after))
                    .bind(&after.group)
                    .bind(json(&after.tags)?)
                    .bind(&after.note)
                    .bind(before.id.as_str())
                    .bind(&before.url)
                    .bind(file(&before))
                    .bind(&before.group)
                    .bind(json(&before.tags)?)
                    .bind(&before.note)
                    .execute(&mut *connection)
                    .await?;
                    if done.rows_affected() == 0 {
                        return Ok(false);
                    }
                    audit::insert(writing, audit).await?;
                    Ok(true)
                })
            })
            .await
    }

    /// Takes an added server away, with a line in the audit; gives it as it was.
    ///
    /// # Errors
    /// The write failed.
    pub async fn remove_server(
        &self,
        id: ServerId,
        audit: NewAudit,
    ) -> Result<Option<StoredServer>> {
        let before = self.servers().await?.into_iter().find(|server| server.id == id);
        let Some(before) = before else { return Ok(None) };
        self.writer
            .run(move |writing| {
                Box::pin(async move {
                    let connection = &mut writing.connection;
                    let done = query("DELETE FROM registry WHERE server = ?")
                        .bind(id.as_str())
                        .execute(&mut *connection)
                        .await?;
                    if done.rows_affected() == 0 {
                        return Ok(None);
                    }
                    audit::insert(writing, audit).await?;
                    // Where it stands in the configuration or a file too, it goes on.
                    let origin: Option<String> =
                        sqlx::query_scalar("SELECT origin FROM registrations WHERE server = ?")
                            .bind(id.as_str())
                            .fetch_optional(&mut writing.connection)
                            .await?;
                    if origin.is_none_or(|origin| origin == "database") {
                        queue::cancel_waiting(writing, &id).await?;
                    }
                    Ok(Some(before))
                })
            })
            .await
    }

    /// Every server that was added, by id.
    ///
    /// # Errors
    /// The read failed.
    pub async fn servers(&self) -> Result<Vec<StoredServer>> {
        let rows: Vec<(String, String, Option<String>, String, String, String)> = sqlx::query_as(
            "SELECT server, url, token_file, server_group, tags, note FROM registry \
             ORDER BY server",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter()
            .map(|(id, url, token_file, group, tags, note)| {
                Ok(StoredServer {
                    tags: serde_json::from_str(&tags).map_err(|error| wrong(&id, &error))?,
                    id: id.parse().map_err(|error: wire::InvalidId| wrong(&id, &error))?,
                    url,
                    token_file: token_file.map(PathBuf::from),
                    group,
                    note,
                })
            })
            .collect()
    }

    /// Every server that is or was registered.
    ///
    /// # Errors
    /// The read failed.
    pub async fn registrations(&self) -> Result<BTreeMap<ServerId, Registration>> {
        type Row = (String, String, String, String, String, String, Option<i64>);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT server, url, server_group, tags, note, origin, retired_at FROM registrations",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter()
            .map(|(id, url, group, tags, note, origin, retired_at)| {
                let server: ServerId =
                    id.parse().map_err(|error: wire::InvalidId| wrong(&id, &error))?;
                let tags = serde_json::from_str(&tags).map_err(|error| wrong(&id, &error))?;
                let retired_at = retired_at.map(Time::from_millis);
                let it = Registration {
                    server: server.clone(),
                    url,
                    group,
                    tags,
                    note,
                    origin,
                    retired_at,
                };
                Ok((server, it))
            })
            .collect()
    }

    /// Takes down what is registered, and what is not any more: what waits for that is cancelled.
    ///
    /// # Errors
    /// The write failed.
    pub async fn register(&self, changed: Vec<Registration>) -> Result<()> {
        self.writer
            .run(move |writing| {
                Box::pin(async move {
                    for it in changed {
                        if it.retired_at.is_some() {
                            queue::cancel_waiting(writing, &it.server).await?;
                        }
                        put(&mut writing.connection, it).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    /// What a server said last, whether or not it is still registered.
    ///
    /// # Errors
    /// The read failed.
    pub async fn last_state(&self, server: &ServerId) -> Result<Option<State>> {
        let json: Option<String> = sqlx::query_scalar(
            "SELECT state FROM states JOIN servers ON servers.id = states.server \
             WHERE servers.server = ?",
        )
        .bind(server.as_str())
        .fetch_optional(&self.readers)
        .await?;
        // One of an older form is left out.
        Ok(json.and_then(|json| serde_json::from_str(&json).ok()))
    }
}

async fn put(connection: &mut SqliteConnection, it: Registration) -> Result<()> {
    query(
        "INSERT INTO registrations (server, url, server_group, tags, note, origin, retired_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (server) DO UPDATE SET url = excluded.url, \
         server_group = excluded.server_group, tags = excluded.tags, note = excluded.note, \
         origin = excluded.origin, retired_at = excluded.retired_at",
    )
    .bind(it.server.as_str())
    .bind(&it.url)
    .bind(&it.group)
    .bind(json(&it.tags)?)
    .bind(&it.note)
    .bind(&it.origin)
    .bind(it.retired_at.map(Time::as_millis))
    .execute(connection)
    .await?;
    Ok(())
}

fn file(server: &StoredServer) -> Option<String> {
    server.token_file.as_ref().map(|path| path.to_string_lossy().into_owned())
}

fn json(tags: &[String]) -> Result<String> {
    serde_json::to_string(tags).map_err(|error| StoreError::Failed(error.to_string()))
}

fn wrong(id: &str, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Failed(format!("server {id}: {error}"))
}
