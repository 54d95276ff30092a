//! How many connections there are, of all and of each address. One too many displaces one that is
//! needed less, so that whoever holds connections holds up only themselves: in the order of
//! [`Need`], and of those alike the one of the address that has most, and has been so for longest.
//! What is being answered is not displaced: it is soon over, or it waits, or stalls.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::phase::{Need, Phase};
use super::{Network, whose};

#[derive(Debug)]
struct Entry {
    phase: Phase,
    over: CancellationToken,
}

#[derive(Debug, Default)]
struct All {
    next: u64,
    total: usize,
    /// By address, and by number.
    by: HashMap<IpAddr, BTreeMap<u64, Entry>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Connections {
    most: usize,
    of_address: usize,
    waits_after: Duration,
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
    /// A request waits that is not answered within `waits_after`. `proxies` speak for many, and
    /// are counted among all only.
    pub(crate) fn new(
        most: usize,
        of_address: usize,
        waits_after: Duration,
        proxies: Vec<Network>,
    ) -> Arc<Self> {
        Arc::new(Self { most, of_address, waits_after, proxies, all: Mutex::default() })
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
            let (.., number) = all.by.get(&address).and_then(|of| self.least_needed(of))?;
            all.displace(address, number);
        }
        if all.total >= self.most {
            let candidates = all.by.iter().filter_map(|(address, of)| {
                let (need, since, number) = self.least_needed(of)?;
                Some((need, Reverse(of.len()), since, number, *address))
            });
            let (.., number, address) = candidates.min()?;
            all.displace(address, number);
        }
        let number = all.next;
        all.next += 1;
        all.total += 1;
        let (phase, over) = (Phase::new(), CancellationToken::new());
        let entry = Entry { phase: phase.clone(), over: over.clone() };
        all.by.entry(address).or_default().insert(number, entry);
        drop(all);
        Some(Place { connections: Arc::clone(self), address, number, phase, over })
    }

    /// The least needed of an address. Answers under way give way only where they are more than
    /// what is at work: many requests at once, before they can be seen to wait, displace none.
    fn least_needed(&self, of: &BTreeMap<u64, Entry>) -> Option<(Need, Instant, u64)> {
        let (mut least, mut at_work, mut under_way) = (None, 0_usize, 0_usize);
        for (number, entry) in of {
            let Some((need, since)) = entry.phase.need(self.waits_after) else {
                at_work += 1;
                continue;
            };
            under_way += usize::from(need >= Need::Stalled);
            let this = (need, since, *number);
            least = Some(least.map_or(this, |least: (Need, Instant, u64)| least.min(this)));
        }
        least.filter(|(need, ..)| *need < Need::Stalled || under_way > at_work)
    }
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
    use super::super::phase::Doing;
    use super::*;

    const LONG: Duration = Duration::from_secs(1);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn doing(connections: &Arc<Connections>, last: u8, doing: Doing) -> Place {
        let place = connections.place(address(last)).unwrap();
        place.phase.set(doing);
        place
    }

    fn over(place: &Place) -> bool {
        place.over.is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_needed_least_gives_way_first() {
        let order = [Doing::Asked, Doing::Body, Doing::Quiet, Doing::Head];
        let connections = Connections::new(100, order.len(), LONG, Vec::new());
        let mut places: Vec<_> = order.map(|it| doing(&connections, 1, it)).into();
        tokio::time::advance(LONG).await;
        let mut at_work = Vec::new();
        while let Some(least) = places.pop() {
            at_work.push(doing(&connections, 1, Doing::Answer));
            assert!(over(&least) && !places.iter().any(over), "{least:?}");
        }
        assert!(connections.place(address(1)).is_none(), "all of them are at work");
        assert!(connections.place(address(2)).is_some(), "others are not concerned");
        at_work[1].phase.set(Doing::Ended);
        assert!(connections.place(address(1)).is_none(), "its end may be on its way");
        at_work.pop();
        assert!(connections.place(address(1)).is_some());
        drop((at_work, places));
        assert!(connections.all().by.is_empty() && connections.all().total == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_waits_for_longest_gives_way() {
        let connections = Connections::new(100, 3, LONG, Vec::new());
        let [old, middle, new] = [(); 3].map(|()| connections.place(address(1)).unwrap());
        for place in [&middle, &new, &old] {
            place.phase.set(Doing::Asked);
            tokio::time::advance(LONG / 2).await;
        }
        let fourth = doing(&connections, 1, Doing::Asked);
        assert!(over(&middle) && !over(&new) && !over(&old));
        let fifth = doing(&connections, 1, Doing::Answer);
        assert!(over(&new) && !over(&old));
        assert!(connections.place(address(1)).is_none(), "none waits for long enough");
        fifth.phase.stalled(true);
        assert!(connections.place(address(1)).is_none(), "it gives way to more of its kind only");
        drop(old);
        let stream = doing(&connections, 1, Doing::Stream);
        let _next = connections.place(address(1)).unwrap();
        assert!(over(&fifth) && !over(&stream) && !over(&fourth));
    }

    #[tokio::test(start_paused = true)]
    async fn many_requests_at_once_do_not_displace_streams() {
        let connections = Connections::new(100, 10, LONG, Vec::new());
        let streams = [(); 3].map(|()| doing(&connections, 1, Doing::Stream));
        let asked = [(); 7].map(|()| doing(&connections, 1, Doing::Asked));
        assert!(connections.place(address(1)).is_none());
        tokio::time::advance(LONG).await;
        let _next = doing(&connections, 1, Doing::Asked);
        assert!(over(&asked[0]) && !streams.iter().any(over));
        // Where they are nearly all there is, one of them does.
        let streams = [(); 10].map(|()| doing(&connections, 2, Doing::Stream));
        let _next = doing(&connections, 2, Doing::Asked);
        assert!(over(&streams[0]) && streams.iter().filter(|it| over(it)).count() == 1);
    }

    #[test]
    fn all_together_are_bounded_and_proxies_are_counted_so_only() {
        let proxies = vec!["192.0.2.9".parse().unwrap()];
        let connections = Connections::new(10, 2, LONG, proxies);
        let of_proxy: Vec<_> = (0..10).map(|_| doing(&connections, 9, Doing::Quiet)).collect();
        let one = connections.place(address(1)).unwrap();
        assert!(over(&of_proxy[0]) && !over(&of_proxy[1]));
        let two = connections.place(address(2)).unwrap();
        assert!(over(&one) && !over(&two));
        assert_eq!(connections.all().total, 10);
        two.phase.set(Doing::Quiet);
        let _three = connections.place(address(3)).unwrap();
        assert!(over(&of_proxy[1]) && !over(&two), "of the address that has most");
        drop((one, two, of_proxy));
        assert!(connections.all().by.len() == 1 && connections.all().total == 1);
    }
}
