use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use exposition::{Family, Kind, Labels, Writer};
use wire::Time;

use super::send::Delivery;

const SENT: Family = Family {
    name: "pm2_poller_notifications_total",
    kind: Kind::Counter,
    labels: &["receiver", "result"],
    help: "Messages to receivers of alerts, by how their delivery ended.",
};
const LAST: Family = Family {
    name: "pm2_poller_notify_last_success_timestamp_seconds",
    kind: Kind::Gauge,
    labels: &["receiver"],
    help: "When a receiver of alerts last took a message.",
};
const WAITING: Family = Family {
    name: "pm2_poller_notify_waiting_alerts",
    kind: Kind::Gauge,
    labels: &["receiver"],
    help: "Alerts that began or ended and that a receiver has not been told of yet.",
};

/// How a receiver fares, since this program started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceiverStatus {
    /// Messages by how they ended.
    pub deliveries: BTreeMap<Delivery, u64>,
    /// When it last took one.
    pub last_success: Option<Time>,
    /// Changes that it has not been told of.
    pub waiting: usize,
}

/// How all of them fare. One that leaves the configuration leaves here.
#[derive(Debug, Default)]
pub struct Status(Mutex<BTreeMap<String, ReceiverStatus>>);

impl Status {
    fn with<T>(&self, look: impl FnOnce(&mut BTreeMap<String, ReceiverStatus>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn keep<'a>(&self, names: impl Iterator<Item = &'a String>) {
        self.with(|all| {
            let mut before = std::mem::take(all);
            for name in names {
                all.insert(name.clone(), before.remove(name).unwrap_or_default());
            }
        });
    }

    pub(super) fn waiting(&self, name: &str, waiting: usize) {
        self.with(|all| all.entry(name.to_owned()).or_default().waiting = waiting);
    }

    pub(super) fn delivered(&self, name: &str, delivery: Delivery, now: Time) {
        self.with(|all| {
            let Some(status) = all.get_mut(name) else { return };
            *status.deliveries.entry(delivery).or_default() += 1;
            if delivery == Delivery::Success {
                status.last_success = Some(now);
            }
        });
    }

    /// Every receiver, by name.
    pub fn all(&self) -> BTreeMap<String, ReceiverStatus> {
        self.with(|all| all.clone())
    }

    /// How many messages failed and arrived, by receiver.
    pub(super) fn counts(&self) -> BTreeMap<String, (u64, u64)> {
        let count = |status: &ReceiverStatus| {
            let all: u64 = status.deliveries.values().sum();
            let arrived = status.deliveries.get(&Delivery::Success).copied().unwrap_or_default();
            (all - arrived, arrived)
        };
        self.with(|all| all.iter().map(|(name, status)| (name.clone(), count(status))).collect())
    }

    /// The metrics of all of them.
    pub fn write(&self, writer: &mut Writer) {
        let all = self.all();
        let none = Labels::default();
        writer.family(&SENT, |samples| {
            for (name, status) in &all {
                for delivery in Delivery::ALL {
                    let count = status.deliveries.get(&delivery).copied().unwrap_or_default();
                    let labels = [("receiver", name.as_str()), ("result", delivery.as_str())];
                    samples.add_with(&none, &labels, count as f64);
                }
            }
        });
        writer.family(&LAST, |samples| {
            for (name, status) in &all {
                if let Some(time) = status.last_success {
                    samples.add_with(&none, &[("receiver", name)], time.as_seconds());
                }
            }
        });
        writer.family(&WAITING, |samples| {
            for (name, status) in &all {
                samples.add_with(&none, &[("receiver", name)], status.waiting as f64);
            }
        });
    }
}
