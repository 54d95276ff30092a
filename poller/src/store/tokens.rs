//! Tokens. What is kept is their SHA-256.

use service::token::TokenHash;
use sqlx::query;
use wire::Time;

use super::audit::{self, NewAudit};
use super::users::{change_access, json};
use super::{Result, Store, StoreError};
use crate::access::{Limits, Role};

/// A token to keep.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Its name, which the audit gives as who.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Its SHA-256.
    pub hash: TokenHash,
    /// What it is limited to.
    pub limits: Limits,
    /// Until when.
    pub expires_at: Option<Time>,
}

/// A token as kept.
#[derive(Clone, Debug)]
pub struct StoredToken {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Its SHA-256.
    pub hash: TokenHash,
    /// What it is limited to.
    pub limits: Limits,
    /// Since when.
    pub created_at: Time,
    /// Until when.
    pub expires_at: Option<Time>,
    /// Since when it is worth nothing.
    pub revoked_at: Option<Time>,
    /// When it was used last, to the minute or so.
    pub last_used: Option<Time>,
}

impl StoredToken {
    /// Whether it opens anything at `now`.
    pub fn is_valid(&self, now: Time) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

impl Store {
    /// Keeps a token, with a line in the audit.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when one of that name is in use.
    pub async fn create_token(&self, token: NewToken, audit: NewAudit) -> Result<()> {
        self.writer
            .run(move |writing| {
                Box::pin(async move {
                    let connection = &mut writing.connection;
                    let done = query(
                        "INSERT INTO tokens (name, role, hash, limits, created_at, expires_at) \
                         VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    )
                    .bind(&token.name)
                    .bind(token.role.as_str())
                    .bind(token.hash.as_bytes().as_slice())
                    .bind(json(&token.limits)?)
                    .bind(Time::now().as_millis())
                    .bind(token.expires_at.map(Time::as_millis))
                    .execute(&mut *connection)
                    .await?;
                    if done.rows_affected() == 0 {
                        return Err(StoreError::Exists(format!(
                            "a token with the name {:?} is there already: revoke it first, \
                             or choose another name",
                            token.name
                        )));
                    }
                    audit::insert(writing, audit).await
                })
            })
            .await
    }

    /// Makes a token worthless, with a line in the audit; `false` when none of that name is in
    /// use.
    ///
    /// # Errors
    /// [`StoreError::LastAdmin`] when nobody could administer the poller then, unless `forced`.
    pub async fn revoke_token(&self, name: String, audit: NewAudit, forced: bool) -> Result<bool> {
        self.writer
            .run(move |writing| {
                Box::pin(async move {
                    let change = query(
                        "UPDATE tokens SET revoked_at = ? WHERE name = ? AND revoked_at IS NULL",
                    )
                    .bind(Time::now().as_millis())
                    .bind(&name);
                    change_access(writing, change, audit, forced).await
                })
            })
            .await
    }

    /// Every token there ever was, by name and age.
    ///
    /// # Errors
    /// The read failed.
    pub async fn tokens(&self) -> Result<Vec<StoredToken>> {
        type Row =
            (i64, String, String, Vec<u8>, String, i64, Option<i64>, Option<i64>, Option<i64>);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, name, role, hash, limits, created_at, expires_at, revoked_at, last_used \
             FROM tokens ORDER BY name, id",
        )
        .fetch_all(&self.readers)
        .await?;
        let token = |row: Row| {
            let (id, name, role, hash, limits, created_at, expires_at, revoked_at, used) = row;
            let wrong = |error: &str| StoreError::Failed(format!("token {name:?}: {error}"));
            let hash: [u8; 32] = hash.try_into().map_err(|_| wrong("its hash"))?;
            Ok(StoredToken {
                id,
                role: role.parse().map_err(|error: wire::InvalidId| wrong(&error.to_string()))?,
                hash: TokenHash::from_bytes(hash),
                limits: serde_json::from_str(&limits).map_err(|error| wrong(&error.to_string()))?,
                created_at: Time::from_millis(created_at),
                expires_at: expires_at.map(Time::from_millis),
                revoked_at: revoked_at.map(Time::from_millis),
                last_used: used.map(Time::from_millis),
                name,
            })
        };
        rows.into_iter().map(token).collect()
    }
}
