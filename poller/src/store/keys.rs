//! Callers' own names for requests (`Idempotency-Key`): each is one command's or one selection's for good.

use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, query_scalar};
use wire::CommandId;

use super::commands::{COLUMNS, StoredCommand, parsed};
use super::{Result, Store};

/// What a key was used for.
#[derive(Clone, Debug)]
pub enum Keyed {
    /// A command.
    Command(Box<StoredCommand>),
    /// A selection.
    Selection(CommandId),
}

impl Store {
    /// What a token's key was used for. Whatever was to be put on record before this was asked is looked at.
    ///
    /// # Errors
    /// The read failed.
    pub async fn keyed(&self, token: i64, key: String) -> Result<Option<Keyed>> {
        self.writer
            .run_relaxed(move |writing| {
                Box::pin(async move { find(&mut writing.connection, token, &key).await })
            })
            .await
    }
}

pub(super) async fn find(
    connection: &mut SqliteConnection,
    token: i64,
    key: &str,
) -> Result<Option<Keyed>> {
    let mut sql = QueryBuilder::new(COLUMNS);
    sql.push(" WHERE token = ").push_bind(token);
    sql.push(" AND idempotency_key = ").push_bind(key);
    let command: Option<StoredCommand> =
        sql.build_query_as().fetch_optional(&mut *connection).await?;
    if let Some(command) = command {
        return Ok(Some(Keyed::Command(Box::new(command))));
    }
    let selection: Option<String> =
        query_scalar("SELECT id FROM selections WHERE token = ? AND idempotency_key = ?")
            .bind(token)
            .bind(key)
            .fetch_optional(connection)
            .await?;
    Ok(selection.map(|id| parsed(&id)).transpose()?.map(Keyed::Selection))
}
