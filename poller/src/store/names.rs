//! Names that samples refer to by number: instances of processes, and metrics beyond those
//! that every process has. Numbers are given once and remembered in memory.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use indexmap::{Equivalent, IndexMap};
use sqlx::sqlite::SqliteConnection;
use wire::{AppName, Instance, ServerId, SmolStr, Time};

use super::commands::parsed;
use super::writer::Transaction;
use super::{Result, Store, StoreError};

/// Most names of one kind that a server may have. Beyond that, those not seen for two days make
/// room, with their history; where there are none, the sample is refused.
const MAX_NAMES: usize = 10_000;
const UNSEEN: i64 = 48 * 3_600_000;
/// `last_seen` is written again when it is this old, in milliseconds.
const SEEN_AGAIN: i64 = 3_600_000;

/// How names of one kind are written.
struct Kind {
    what: &'static str,
    seen: &'static str,
    greatest: &'static str,
    forget: &'static str,
}

const INSTANCES: Kind = Kind {
    what: "process names",
    seen: "UPDATE instances SET last_seen = ? WHERE id = ?",
    greatest: "SELECT max(id) FROM instances",
    forget: "DELETE FROM instances WHERE server = ? AND last_seen < ? AND id < ?",
};
const METRICS: Kind = Kind {
    what: "metric names",
    seen: "UPDATE metrics SET last_seen = ? WHERE id = ?",
    greatest: "SELECT max(id) FROM metrics",
    forget: "DELETE FROM metrics WHERE server = ? AND last_seen < ? AND id < ?",
};

#[derive(Clone, Copy, Debug)]
struct Name {
    id: i64,
    last_seen: i64,
}

impl Name {
    /// Its number; that it was seen is written down now and then.
    async fn seen(
        &mut self,
        transaction: &mut Transaction<'_>,
        kind: &Kind,
        now: i64,
    ) -> Result<i64> {
        if now.saturating_sub(self.last_seen) > SEEN_AGAIN {
            let connection = transaction.write().await?;
            sqlx::query(kind.seen).bind(now).bind(self.id).execute(connection).await?;
            self.last_seen = now;
        }
        Ok(self.id)
    }
}

/// The names of all servers whose samples were written lately.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<i64, ServerNames>);

#[derive(Debug, Default)]
pub(super) struct ServerNames {
    instances: Known<Instance>,
    /// By name and unit.
    metrics: Known<(SmolStr, SmolStr)>,
}

/// In the order in which they came first. Samples mostly have them in the same order, process after
/// process, so that each is looked for right after the one before.
#[derive(Debug)]
struct Known<K> {
    all: IndexMap<K, Name>,
    next: usize,
}

impl<K> Default for Known<K> {
    fn default() -> Self {
        Self { all: IndexMap::default(), next: 0 }
    }
}

impl<K: Hash + Eq> Known<K> {
    fn get(&mut self, key: &(impl Hash + Equivalent<K>)) -> Option<&mut Name> {
        let place = match self.all.get_index(self.next) {
            Some((known, _)) if key.equivalent(known) => self.next,
            _ => self.all.get_index_of(key)?,
        };
        self.next = if place + 1 < self.all.len() { place + 1 } else { 0 };
        self.all.get_index_mut(place).map(|(_, name)| name)
    }

    /// Room for one more: where there are too many, those that nobody saw for long make it. The
    /// greatest number stays: it would be given again, and blocks of the past have it.
    async fn make_room(
        &mut self,
        transaction: &mut Transaction<'_>,
        kind: &Kind,
        server: i64,
        now: i64,
    ) -> Result<()> {
        if self.all.len() < MAX_NAMES {
            return Ok(());
        }
        let old = now - UNSEEN;
        let connection = transaction.write().await?;
        let greatest: i64 = sqlx::query_scalar(kind.greatest).fetch_one(&mut *connection).await?;
        let forget = sqlx::query(kind.forget).bind(server).bind(old).bind(greatest);
        let gone = forget.execute(connection).await?;
        self.all.retain(|_, name| name.last_seen >= old || name.id >= greatest);
        match gone.rows_affected() {
            0 => Err(StoreError::TooMany(kind.what)),
            _ => Ok(()),
        }
    }
}

impl Store {
    /// Those of some servers that had an app since a moment, as their samples say, to an hour: in these
    /// PM2s, by directory (empty where an exporter watches one), or in any.
    ///
    /// # Errors
    /// The read failed.
    pub async fn had_app(
        &self,
        servers: Vec<(ServerId, Option<Vec<String>>)>,
        app: &AppName,
        since: Time,
    ) -> Result<BTreeSet<ServerId>> {
        if servers.is_empty() {
            return Ok(BTreeSet::new());
        }
        let asked = serde_json::to_string(&servers);
        let asked = asked.map_err(|error| StoreError::Failed(error.to_string()))?;
        #[cfg(test)]
        let _holding = crate::simulation::world::hold();
        let found: Vec<String> = sqlx::query_scalar(
            "SELECT servers.server FROM json_each(?) AS asked \
             JOIN servers ON servers.server = asked.value ->> 0 \
             WHERE EXISTS (SELECT 1 FROM instances WHERE instances.server = servers.id \
             AND name = ? AND last_seen >= ? AND (asked.value ->> 1 IS NULL OR pm2_home IN \
             (SELECT value FROM json_each(asked.value, '$[1]'))))",
        )
        .bind(asked)
        .bind(app.as_str())
        .bind(since.as_millis())
        .fetch_all(&self.readers)
        .await?;
        found.iter().map(|id| Ok(parsed(id)?)).collect()
    }
}

#[derive(Hash)]
struct Metric<'a> {
    name: &'a str,
    unit: &'a str,
}

impl Equivalent<(SmolStr, SmolStr)> for Metric<'_> {
    fn equivalent(&self, (name, unit): &(SmolStr, SmolStr)) -> bool {
        self.name == *name && self.unit == *unit
    }
}

impl Names {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Those of one server, read when they are not known yet.
    pub(super) async fn of(
        &mut self,
        transaction: &mut Transaction<'_>,
        server: i64,
    ) -> Result<&mut ServerNames> {
        use std::collections::hash_map::Entry;
        match self.0.entry(server) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => {
                Ok(place.insert(ServerNames::read(transaction.read(), server).await?))
            }
        }
    }
}

impl ServerNames {
    async fn read(connection: &mut SqliteConnection, server: i64) -> Result<Self> {
        let mut names = Self::default();
        let rows: Vec<(i64, String, String, u32, String, i64)> = sqlx::query_as(
            "SELECT id, name, namespace, instance_id, pm2_home, last_seen FROM instances \
             WHERE server = ? ORDER BY id",
        )
        .bind(server)
        .fetch_all(&mut *connection)
        .await?;
        for (id, name, namespace, instance_id, pm2_home, last_seen) in rows {
            let Ok(name) = name.parse() else { continue };
            let pm2_home = (!pm2_home.is_empty()).then(|| pm2_home.into());
            let instance = Instance { name, namespace: namespace.into(), instance_id, pm2_home };
            names.instances.all.insert(instance, Name { id, last_seen });
        }
        let rows: Vec<(i64, String, String, i64)> = sqlx::query_as(
            "SELECT id, name, unit, last_seen FROM metrics WHERE server = ? ORDER BY id",
        )
        .bind(server)
        .fetch_all(connection)
        .await?;
        for (id, name, unit, last_seen) in rows {
            names.metrics.all.insert((name.into(), unit.into()), Name { id, last_seen });
        }
        Ok(names)
    }

    /// The number of an instance.
    pub(super) async fn instance(
        &mut self,
        transaction: &mut Transaction<'_>,
        server: i64,
        instance: &Instance,
        now: Time,
    ) -> Result<i64> {
        let now = now.as_millis();
        if let Some(known) = self.instances.get(instance) {
            return known.seen(transaction, &INSTANCES, now).await;
        }
        self.instances.make_room(transaction, &INSTANCES, server, now).await?;
        let id = sqlx::query_scalar(
            "INSERT INTO instances (server, name, namespace, instance_id, pm2_home, last_seen) \
             VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
        )
        .bind(server)
        .bind(instance.name.as_str())
        .bind(&*instance.namespace)
        .bind(instance.instance_id)
        .bind(instance.pm2_home.as_deref().unwrap_or_default())
        .bind(now)
        .fetch_one(transaction.write().await?)
        .await?;
        self.instances.all.insert(instance.clone(), Name { id, last_seen: now });
        Ok(id)
    }

    /// The number of a metric.
    pub(super) async fn metric(
        &mut self,
        transaction: &mut Transaction<'_>,
        server: i64,
        (name, unit): (&str, &str),
        now: Time,
    ) -> Result<i64> {
        let now = now.as_millis();
        if let Some(known) = self.metrics.get(&Metric { name, unit }) {
            return known.seen(transaction, &METRICS, now).await;
        }
        self.metrics.make_room(transaction, &METRICS, server, now).await?;
        let id = sqlx::query_scalar(
            "INSERT INTO metrics (server, name, unit, last_seen) VALUES (?, ?, ?, ?) RETURNING id",
        )
        .bind(server)
        .bind(name)
        .bind(unit)
        .bind(now)
        .fetch_one(transaction.write().await?)
        .await?;
        self.metrics.all.insert((name.into(), unit.into()), Name { id, last_seen: now });
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_in_any_order() {
        let names = ["heap_used", "", "a name that is longer than what is kept in place"];
        let mut known = Known::default();
        for (id, name) in (0..).zip(names) {
            known.all.insert((name.into(), "bytes".into()), Name { id, last_seen: 0 });
        }
        let mut id = |name, unit| known.get(&Metric { name, unit }).map(|name| name.id);
        for place in [0, 1, 2, 0, 1, 2, 2, 1, 0, 2, 0, 1] {
            assert_eq!(id(names[place], "bytes"), i64::try_from(place).ok());
            assert_eq!(id(names[place], "seconds"), None, "the same name of another unit");
        }
    }
}
