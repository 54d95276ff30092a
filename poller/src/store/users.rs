//! Users. What is kept of a password is its argon2id hash.

use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection};
use sqlx::{query, query_scalar};
use wire::Time;

use super::audit::{self, NewAudit};
use super::writer::Writing;
use super::{Result, Store, StoreError};
use crate::access::{Limits, Role};

/// A user to keep.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// Their name, which the audit gives as who.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Hash of their password, in the PHC string format.
    pub password: String,
    /// What they are limited to.
    pub limits: Limits,
    /// Until when.
    pub expires_at: Option<Time>,
}

/// A user as kept.
#[derive(Clone)]
pub struct StoredUser {
    /// Their number.
    pub id: i64,
    /// Their name.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Hash of their password.
    pub password: String,
    /// When it was set.
    pub password_at: Time,
    /// What they are limited to.
    pub limits: Limits,
    /// Since when.
    pub created_at: Time,
    /// Until when.
    pub expires_at: Option<Time>,
    /// When they were seen last, to the minute or so.
    pub last_used: Option<Time>,
}

impl std::fmt::Debug for StoredUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StoredUser").field(&self.name).field(&self.role).finish()
    }
}

/// What is to be different; `None` leaves it.
#[derive(Clone, Debug, Default)]
pub struct UserChange {
    /// What they may do.
    pub role: Option<Role>,
    /// Hash of a new password.
    pub password: Option<String>,
    /// What they were limited to, and are to be.
    pub limits: Option<(Limits, Limits)>,
    /// Until when; `Some(None)` for ever.
    pub expires_at: Option<Option<Time>>,
}

impl Store {
    /// Keeps a user, with a line in the audit.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when there is one of that name.
    pub async fn create_user(&self, user: NewUser, audit: NewAudit) -> Result<()> {
        self.writer
            .run(move |writing| {
                Box::pin(async move {
                    let connection = &mut writing.connection;
                    let now = Time::now().as_millis();
                    let done = query(
                        "INSERT INTO users (name, role, password, password_at, limits, \
                         created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?) \
                         ON CONFLICT DO NOTHING",
                    )
                    .bind(&user.name)
                    .bind(user.role.as_str())
                    .bind(&user.password)
                    .bind(now)
                    .bind(json(&user.limits)?)
                    .bind(now)
                    .bind(user.expires_at.map(Time::as_millis))
                    .execute(&mut *connection)
                    .await?;
                    if done.rows_affected() == 0 {
                        let message = format!("a user {:?} is there already", user.name);
                        return Err(StoreError::Exists(message));
                    }
                    audit::insert(writing, audit).await
                })
            })
            .await
    }

    /// Changes a user, with a line in the audit; `false` when there is none of that name.
    ///
    /// # Errors
    /// [`StoreError::LastAdmin`] when nobody could administer the poller then, unless `forced`;
    /// [`StoreError::Moved`] when their limits are others by now than those to go on from.
    pub async fn change_user(
        &self,
        name: String,
        change: UserChange,
        audit: NewAudit,
        forced: bool,
    ) -> Result<bool> {
        self.writer
            .run(move |writing| {
                Box::pin(async move {
                    let now = Time::now().as_millis();
                    let limits = match &change.limits {
                        Some((before, limits)) => {
                            let now: Option<String> =
                                query_scalar("SELECT limits FROM users WHERE name = ?")
                                    .bind(&name)
                                    .fetch_optional(&mut writing.connection)
                                    .await?;
                            let Some(now) = now else { return Ok(false) };
                            if serde_json::from_str::<Limits>(&now).ok().as_ref() != Some(before) {
                                return Err(StoreError::Moved);
                            }
                            Some(json(limits)?)
                        }
                        None => None,
                    };
                    let change = query(
                        "UPDATE users SET role = coalesce(?, role), \
                         password_at = CASE WHEN ? IS NULL THEN password_at ELSE ? END, \
                         password = coalesce(?, password), limits = coalesce(?, limits), \
                         expires_at = CASE WHEN ? THEN ? ELSE expires_at END WHERE name = ?",
                    )
                    .bind(change.role.map(Role::as_str))
                    .bind(&change.password)
                    .bind(now)
                    .bind(&change.password)
                    .bind(limits)
                    .bind(change.expires_at.is_some())
                    .bind(change.expires_at.flatten().map(Time::as_millis))
                    .bind(&name);
                    change_access(writing, change, audit, forced).await
                })
            })
            .await
    }

    /// Removes a user, with a line in the audit; `false` when there is none of that name.
    ///
    /// # Errors
    /// [`StoreError::LastAdmin`] when nobody could administer the poller then, unless `forced`.
    pub async fn remove_user(&self, name: String, audit: NewAudit, forced: bool) -> Result<bool> {
        self.writer
            .run(move |writing| {
                Box::pin(async move {
                    let change = query("DELETE FROM users WHERE name = ?").bind(&name);
                    change_access(writing, change, audit, forced).await
                })
            })
            .await
    }

    /// Every user, by name.
    ///
    /// # Errors
    /// The read failed.
    pub async fn users(&self) -> Result<Vec<StoredUser>> {
        type Row = (i64, String, String, String, i64, String, i64, Option<i64>, Option<i64>);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, name, role, password, password_at, limits, created_at, expires_at, \
             last_used FROM users ORDER BY name",
        )
        .fetch_all(&self.readers)
        .await?;
        let user = |row: Row| {
            let (id, name, role, password, password_at, limits, created_at, expires_at, used) = row;
            let wrong = |error: String| StoreError::Failed(format!("user {name:?}: {error}"));
            Ok(StoredUser {
                id,
                role: role.parse().map_err(|error: wire::InvalidId| wrong(error.to_string()))?,
                limits: serde_json::from_str(&limits).map_err(|error| wrong(error.to_string()))?,
                password,
                password_at: Time::from_millis(password_at),
                created_at: Time::from_millis(created_at),
                expires_at: expires_at.map(Time::from_millis),
                last_used: used.map(Time::from_millis),
                name,
            })
        };
        rows.into_iter().map(user).collect()
    }

    /// Keeps when tokens, and users by numbers below zero, were used last.
    ///
    /// # Errors
    /// The write failed.
    pub async fn used(&self, used: Vec<(i64, Time)>) -> Result<()> {
        self.writer
            .run(move |writing| {
                Box::pin(async move {
                    for (number, time) in used {
                        let sql = match number {
                            ..0 => "UPDATE users SET last_used = ? WHERE id = ?",
                            _ => "UPDATE tokens SET last_used = ? WHERE id = ?",
                        };
                        query(sql)
                            .bind(time.as_millis())
                            .bind(number.abs())
                            .execute(&mut writing.connection)
                            .await?;
                    }
                    Ok(())
                })
            })
            .await
    }
}

pub(super) fn json(limits: &Limits) -> Result<String> {
    serde_json::to_string(limits).map_err(|error| StoreError::Failed(error.to_string()))
}

/// Changes who may do what, with a line in the audit; `false` when nothing changed.
///
/// # Errors
/// [`StoreError::LastAdmin`] when nobody could administer the poller then, unless `forced`: what the
/// change did is undone with the error.
pub(super) async fn change_access(
    writing: &mut Writing,
    change: Query<'_, Sqlite, SqliteArguments>,
    audit: NewAudit,
    forced: bool,
) -> Result<bool> {
    let connection = &mut writing.connection;
    let had_admin = has_admin(connection).await?;
    if change.execute(&mut *connection).await?.rows_affected() == 0 {
        return Ok(false);
    }
    if had_admin && !forced && !has_admin(connection).await? {
        return Err(StoreError::LastAdmin);
    }
    audit::insert(writing, audit).await?;
    Ok(true)
}

/// Whether there is somebody who may do everything.
async fn has_admin(connection: &mut SqliteConnection) -> Result<bool> {
    let now = Time::now().as_millis();
    let has: bool = query_scalar(
        "SELECT EXISTS (SELECT 1 FROM users WHERE role = 'admin' AND limits = '{}' \
                        AND (expires_at IS NULL OR expires_at > ?)) \
             OR EXISTS (SELECT 1 FROM tokens WHERE role = 'admin' AND limits = '{}' \
                        AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?))",
    )
    .bind(now)
    .bind(now)
    .fetch_one(connection)
    .await?;
    Ok(has)
}
