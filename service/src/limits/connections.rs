//! How many connections there are, of all and of each address. One too many displaces the oldest
//! that has not sent a whole request yet, so that whoever holds connections open without asking
//! for anything holds up only themselves; then the oldest that is quiet between two requests.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::{Network, whose};

/// What a connection is doing, told by the service to the stream beneath it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Phase(Arc<AtomicU8>);

impl Phase {
    /// Headers are being read; a connection begins so.
    pub(crate) const HEAD: u8 = 0;
    /// A request is being answered.
    pub(crate) const ANSWERING: u8 = 1;
    /// Between requests.
    pub(crate) const QUIET: u8 = 2;

    pub(crate) fn set(&self, phase: u8) {
        self.0.store(phase, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Entry {
    phase: Phase,
    over: CancellationToken,
}

#[derive(Debug, Default)]
struct All {
    next: u64,
    total: usize,
    /// By address, and by number: the oldest first.
    by: HashMap<IpAddr, BTreeMap<u64, Entry>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Connections {
    most: usize,
    of_address: usize,
    proxies: Vec<Network>,
    all: Mutex<All>,
}

/// One connection's place; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    connections: Arc<Connections>,
    address: IpAddr,
    number: u64,
    pub(crate) phase: Phase,
    /// Another takes the place.
    pub(crate) over: CancellationToken,
}

impl Connections {
    /// `proxies` speak for many, and are counted among all only.
    pub(crate) fn new(most: usize, of_address: usize, proxies: Vec<Network>) -> Arc<Self> {
        Arc::new(Self { most, of_address, proxies, all: Mutex::default() })
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection; `None` when every place is in use for something.
    pub(crate) fn place(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let address = whose(peer);
        let is_proxy = self.proxies.iter().any(|network| network.contains(peer));
        let mut all = self.all();
        let of_address = all.by.get(&address).map_or(0, BTreeMap::len);
        if !is_proxy && of_address >= self.of_address {
            let number = all.by.get(&address).and_then(least_needed)?.1;
            all.displace(address, number);
        }
        if all.total >= self.most {
            let candidates = all.by.iter().filter_map(|(address, of)| {
                least_needed(of).map(|(phase, number)| (phase, number, *address))
            });
            let (_, number, address) = candidates.min()?;
            all.displace(address, number);
        }
        let number = all.next;
        all.next += 1;
        all.total += 1;
        let (phase, over) = (Phase::default(), CancellationToken::new());
        let entry = Entry { phase: phase.clone(), over: over.clone() };
        all.by.entry(address).or_default().insert(number, entry);
        drop(all);
        Some(Place { connections: Arc::clone(self), address, number, phase, over })
    }
}

/// The oldest that reads headers, else the oldest that is quiet: lower sorts first.
fn least_needed(of: &BTreeMap<u64, Entry>) -> Option<(u8, u64)> {
    let order = |phase: u8| match phase {
        Phase::HEAD => Some(0),
        Phase::QUIET => Some(1),
        _ => None,
    };
    of.iter().filter_map(|(number, entry)| Some((order(entry.phase.get())?, *number))).min()
}

impl All {
    fn displace(&mut self, address: IpAddr, number: u64) {
        if let Some(entry) = self.remove(address, number) {
            entry.over.cancel();
        }
    }

    fn remove(&mut self, address: IpAddr, number: u64) -> Option<Entry> {
        let of = self.by.get_mut(&address)?;
        let entry = of.remove(&number)?;
        self.total -= 1;
        if of.is_empty() {
            self.by.remove(&address);
        }
        Some(entry)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.all().remove(self.address, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn who_asks_for_nothing_gives_way_first() {
        let connections = Connections::new(100, 3, Vec::new());
        let places: Vec<Place> = (0..3).map(|_| connections.place(address(1)).unwrap()).collect();
        places[0].phase.set(Phase::ANSWERING);
        places[1].phase.set(Phase::QUIET);
        let fourth = connections.place(address(1)).unwrap();
        let over = |place: &Place| place.over.is_cancelled();
        assert_eq!(places.iter().map(over).collect::<Vec<_>>(), [false, false, true]);
        fourth.phase.set(Phase::ANSWERING);
        let fifth = connections.place(address(1)).unwrap();
        assert!(over(&places[1]) && !over(&places[0]) && !over(&fourth));
        fifth.phase.set(Phase::ANSWERING);
        assert!(connections.place(address(1)).is_none(), "all of them are at work");
        assert!(connections.place(address(2)).is_some(), "others are not concerned");
        drop(fifth);
        assert!(connections.place(address(1)).is_some());
        drop((places, fourth));
        assert!(connections.all().by.is_empty() && connections.all().total == 0);
    }

    #[test]
    fn all_together_are_bounded_and_proxies_are_counted_so_only() {
        let proxies = vec!["192.0.2.9".parse().unwrap()];
        let connections = Connections::new(10, 2, proxies);
        let of_proxy: Vec<_> = (0..10).map(|_| connections.place(address(9)).unwrap()).collect();
        of_proxy.iter().for_each(|place| place.phase.set(Phase::QUIET));
        let one = connections.place(address(1)).unwrap();
        assert!(of_proxy[0].over.is_cancelled() && !of_proxy[1].over.is_cancelled());
        let two = connections.place(address(2)).unwrap();
        assert!(one.over.is_cancelled() && !two.over.is_cancelled());
        assert_eq!(connections.all().total, 10);
    }
}
