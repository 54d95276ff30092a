//! Refusals on record. Who is refused can ask again at once, so that a row each would fill the
//! disk: an address has some rows a minute, and all have some together; the rest is counted, and
//! the count becomes a row when the minute is over.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::store::NewAudit;

/// How long counts go on before they are written.
const WINDOW: Duration = Duration::from_secs(60);
/// Rows of an address, and of all together, in that time.
const ROWS: u32 = 30;
const ROWS_OF_ALL: u32 = 120;
/// Addresses told apart.
const ADDRESSES: usize = 256;

#[derive(Default)]
struct Count {
    written: u32,
    held: i64,
}

/// See the module.
pub(super) struct Refusals {
    begun: Instant,
    written: u32,
    by: HashMap<IpAddr, Count>,
    others: i64,
}

impl std::fmt::Debug for Refusals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Refusals({})", self.by.len())
    }
}

impl Default for Refusals {
    fn default() -> Self {
        Self { begun: Instant::now(), written: 0, by: HashMap::new(), others: 0 }
    }
}

impl Refusals {
    /// Whether this one has a row of its own; it is counted otherwise.
    pub(super) fn has_row(&mut self, address: IpAddr) -> bool {
        if !self.by.contains_key(&address) && self.by.len() >= ADDRESSES {
            self.others += 1;
            return false;
        }
        let count = self.by.entry(address).or_default();
        let has = count.written < ROWS && self.written < ROWS_OF_ALL;
        if has {
            count.written += 1;
            self.written += 1;
        } else {
            count.held += 1;
        }
        has
    }

    /// The counts of a time that is over, as rows; of one that is not where `ending` says so.
    pub(super) fn over(&mut self, ending: bool) -> Vec<NewAudit> {
        if !ending && self.begun.elapsed() < WINDOW {
            return Vec::new();
        }
        let Self { by, others, .. } = std::mem::take(self);
        let held = by.into_iter().filter(|(_, count)| count.held > 0);
        let mut rows: Vec<NewAudit> =
            held.map(|(address, count)| more(address.to_string(), count.held)).collect();
        if others > 0 {
            rows.push(more("other addresses".to_owned(), others));
        }
        rows
    }
}

fn more(address: String, count: i64) -> NewAudit {
    NewAudit {
        who: "-".to_owned(),
        address,
        act: "request",
        outcome: "refused".to_owned(),
        subject: "changes".to_owned(),
        detail: Some("more refusals than are written one by one".to_owned()),
        repeats: Some(count),
        ..NewAudit::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_counted_and_others_have_their_rows() {
        let mut refusals = Refusals::default();
        let [one, two]: [IpAddr; 2] = ["192.0.2.1", "192.0.2.2"].map(|it| it.parse().unwrap());
        let rows = (0..1000).filter(|_| refusals.has_row(one)).count();
        assert_eq!(rows, ROWS as usize);
        assert!(refusals.has_row(two));
        assert!(refusals.over(false).is_empty());
        tokio::time::advance(WINDOW).await;
        let told = refusals.over(false);
        assert_eq!((told.len(), told[0].repeats), (1, Some(1000 - i64::from(ROWS))));
        assert_eq!(told[0].address, "192.0.2.1");
        assert!(refusals.has_row(one) && refusals.over(true).is_empty());
    }

    #[test]
    fn however_many_addresses_there_are_memory_and_rows_are_bounded() {
        let mut refusals = Refusals::default();
        let rows = (0..10_000u32).filter(|it| refusals.has_row(IpAddr::from(it.to_be_bytes())));
        assert_eq!(rows.count(), ROWS_OF_ALL as usize);
        assert_eq!(refusals.by.len(), ADDRESSES);
        let told: i64 = refusals.over(true).iter().filter_map(|row| row.repeats).sum();
        assert_eq!(told, 10_000 - i64::from(ROWS_OF_ALL));
    }
}
