//! A database that is damaged: marked while it is in use, set aside at the next start, and what can still
//! be read of it taken over.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions, Connection, query};

use super::backup::aside;
use super::events::{begin_events_after, events_given};
use super::open::{self, options};
use super::{Result, Store, StoreError, audit, beside};

/// Marks a database as damaged, so that it is set aside when it is opened again.
pub(super) fn mark_damaged(database: &Path) {
    if let Err(error) = File::create(beside(database, "-damaged")) {
        tracing::error!(%error, "the database is damaged, and cannot even be marked so");
    }
}

/// Whether it is marked.
pub fn is_marked(database: &Path) -> bool {
    beside(database, "-damaged").exists()
}

impl Store {
    /// Opens as [`Store::open`] does. One of ours that is damaged is set aside under another
    /// name, and a new one takes its place, with what can still be read of servers, tokens,
    /// users, commands and audit. Gives where the old one is then.
    ///
    /// # Errors
    /// As [`Store::open`] has them, but for damage.
    pub async fn open_or_replace(path: &Path) -> Result<(Self, Option<PathBuf>)> {
        let damage = match is_marked(path) {
            true => "it was found damaged while it was in use".to_owned(),
            false => match Self::open_sound(path).await {
                Ok(store) => return Ok((store, None)),
                Err(StoreError::Corrupt(damage)) => damage,
                Err(error) => return Err(error),
            },
        };
        let kept = aside(path, "damaged")?;
        let _ = fs::remove_file(beside(path, "-damaged"));
        let shown = kept.as_deref().unwrap_or(path).display().to_string();
        tracing::error!(
            kept = shown,
            damage,
            "the database is damaged: it is set aside, a new one is begun"
        );
        let store = Self::open(path).await?;
        if let Some(kept) = &kept {
            let saved = store.salvage(kept).await;
            tracing::warn!(
                rows = saved,
                "what could be read of the damaged database is taken over"
            );
        }
        Ok((store, kept))
    }

    async fn open_sound(path: &Path) -> Result<Self> {
        let store = Self::open(path).await?;
        match open::quick_look(path).await {
            Err(error @ StoreError::Corrupt(_)) => {
                store.close().await;
                Err(error)
            }
            _ => Ok(store),
        }
    }

    /// Takes over what can be read of small tables that nobody could make again. How many rows.
    async fn salvage(&self, from: &Path) -> u64 {
        const TABLES: [&str; 8] = [
            "registry",
            "registrations",
            "selections",
            "users",
            "tokens",
            "commands",
            "audit_anchor",
            "audit",
        ];
        let Some(from) = from.to_str().map(str::to_owned) else { return 0 };
        let mut rows = 0;
        for table in TABLES {
            rows += self.salvage_table(from.clone(), table).await.unwrap_or_else(|error| {
                tracing::warn!(table, %error, "nothing of a table could be taken over");
                0
            });
        }
        let given = events_given(Path::new(&from)).await;
        // What an earlier version wrote has no hashes yet.
        let sealed = self.detached(async |connection| {
            begin_events_after(connection, given).await?;
            query("UPDATE audit_anchor SET sealed = 0").execute(&mut *connection).await?;
            audit::seal(connection).await
        });
        if let Err(error) = sealed.await {
            tracing::warn!(%error, "the audit that was taken over is not chained");
        }
        rows
    }

    async fn salvage_table(&self, from: String, table: &'static str) -> Result<u64> {
        let mut old = options(Path::new(&from)).connect().await?;
        let columns: Vec<String> = sqlx::query_scalar("SELECT name FROM pragma_table_info(?)")
            .bind(table)
            .fetch_all(&mut old)
            .await?;
        if columns.is_empty() {
            return Ok(0);
        }
        let columns = format!("\"{}\"", columns.join("\", \""));
        old.close().await?;
        // There is one anchor, and the old one is meant.
        let verb = if table == "audit_anchor" { "REPLACE" } else { "IGNORE" };
        self.detached(async move |connection| {
            query("ATTACH ? AS old").bind(from).execute(&mut *connection).await?;
            let sql = format!(
                "INSERT OR {verb} INTO main.{table} ({columns}) SELECT {columns} FROM old.{table}"
            );
            let done = query(sqlx::AssertSqlSafe(sql)).execute(&mut *connection).await;
            query("DETACH old").execute(&mut *connection).await?;
            Ok(done?.rows_affected())
        })
        .await
    }

    /// With a connection of its own that may write: before anything else does.
    async fn detached<T>(
        &self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T>,
    ) -> Result<T> {
        let mut connection = options(&self.path).foreign_keys(false).connect().await?;
        let done = work(&mut connection).await;
        connection.close().await?;
        done
    }

    /// Marks the database as damaged: the next start sets it aside.
    pub fn mark_damaged(&self) {
        mark_damaged(&self.path);
    }
}
