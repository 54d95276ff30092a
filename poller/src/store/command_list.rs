//! Which commands there are: what a list is asked for.

use sqlx::QueryBuilder;
use wire::{AppName, CommandId, CommandStatus, ServerId, SlotId, Target, Time};

use super::commands::{COLUMNS, StoredCommand, target_json};
use super::events::json_list;
use super::listed::{Listed, listed};
use super::{Result, Store};

/// Which commands are asked for, newest first. `None` means any.
#[derive(Clone, Debug, Default)]
pub struct CommandFilter {
    /// Only these servers: what the caller may see.
    pub visible: Option<Vec<ServerId>>,
    /// On this server.
    pub server: Option<ServerId>,
    /// On this app.
    pub app: Option<String>,
    /// On this slot, or on its process.
    pub slot: Option<(SlotId, AppName)>,
    /// Sent to this PM2 of several, or its processes were of it.
    pub pm2_home: Option<String>,
    /// Parts of this selection.
    pub part_of: Option<CommandId>,
    /// In this status.
    pub status: Option<CommandStatus>,
    /// At or after.
    pub since: Option<Time>,
    /// Before.
    pub until: Option<Time>,
    /// Numbers below this one.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: usize,
}

impl Store {
    /// The commands that `filter` lets through, newest first.
    ///
    /// # Errors
    /// The read failed.
    pub async fn commands(&self, filter: &CommandFilter) -> Result<Vec<StoredCommand>> {
        Ok(self.list_commands(filter).await?.rows)
    }

    /// The same, as a piece of a list: fewer where they are long.
    ///
    /// # Errors
    /// The read failed.
    pub async fn list_commands(&self, filter: &CommandFilter) -> Result<Listed<StoredCommand>> {
        let mut sql = QueryBuilder::new(COLUMNS);
        sql.push(" WHERE true");
        if let Some(server) = &filter.server {
            sql.push(" AND server = ").push_bind(server.as_str());
        }
        if let Some(visible) = &filter.visible {
            sql.push(" AND server IN (SELECT value FROM json_each(")
                .push_bind(json_list(visible))
                .push("))");
        }
        if let Some(app) = &filter.app {
            sql.push(" AND app = ").push_bind(app);
        }
        if let Some((slot, process)) = &filter.slot {
            sql.push(" AND (target = ").push_bind(target_json(&Target::Slot(slot.clone()))?);
            sql.push(" OR app = ").push_bind(process.as_str()).push(")");
        }
        if let Some(home) = &filter.pm2_home {
            sql.push(" AND (pm2_home = ").push_bind(home);
            for side in ["before", "after"] {
                sql.push(" OR EXISTS (SELECT 1 FROM json_each(outcome, ")
                    .push_bind(format!("$.{side}"));
                sql.push(") WHERE value ->> 'pm2_home' = ").push_bind(home).push(")");
            }
            sql.push(")");
        }
        if let Some(selection) = &filter.part_of {
            sql.push(" AND part_of = ").push_bind(selection.as_str());
        }
        if let Some(status) = filter.status {
            sql.push(" AND status = ").push_bind(status.as_str());
        }
        if let Some(since) = filter.since {
            sql.push(" AND requested_at >= ").push_bind(since.as_millis());
        }
        if let Some(until) = filter.until {
            sql.push(" AND requested_at < ").push_bind(until.as_millis());
        }
        if let Some(before) = filter.before {
            sql.push(" AND seq < ").push_bind(before);
        }
        let rows = i64::try_from(filter.limit.saturating_add(1)).unwrap_or(i64::MAX);
        sql.push(" ORDER BY seq DESC LIMIT ").push_bind(rows);
        let rows = sql.build_query_as::<StoredCommand>().fetch(&self.readers);
        listed(rows, filter.limit, |command| {
            let size = size(&command);
            Ok((command, size))
        })
        .await
    }
}

/// Bytes that it is as JSON, roughly: a process is about a thousand.
fn size(command: &StoredCommand) -> usize {
    let record = &command.record;
    let reply = record.reply.as_ref().map_or(0, String::len);
    reply + 1000 * (1 + record.before.len() + record.after.len() + record.outcomes.len())
}
