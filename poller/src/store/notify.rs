//! What receivers of alerts were told, so that a restart tells nothing twice.

use std::collections::BTreeMap;

use sqlx::query;

use super::{Result, Store};

impl Store {
    /// Every part of that memory, by name.
    ///
    /// # Errors
    /// The read failed.
    pub async fn notify_memory(&self) -> Result<BTreeMap<String, String>> {
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT part, body FROM notify_memory").fetch_all(&self.readers).await?;
        Ok(rows.into_iter().collect())
    }

    /// Keeps parts of it, all or none; a part without a text is forgotten.
    ///
    /// # Errors
    /// The write failed.
    pub async fn keep_notify_memory(&self, parts: Vec<(String, Option<String>)>) -> Result<()> {
        self.writer
            .run(move |writing| {
                Box::pin(async move {
                    for (part, body) in parts {
                        let done = match body {
                            Some(body) => query(
                                "INSERT INTO notify_memory (part, body) VALUES (?, ?) \
                                 ON CONFLICT (part) DO UPDATE SET body = excluded.body",
                            )
                            .bind(part)
                            .bind(body),
                            None => query("DELETE FROM notify_memory WHERE part = ?").bind(part),
                        };
                        done.execute(&mut writing.connection).await?;
                    }
                    Ok(())
                })
            })
            .await
    }
}
