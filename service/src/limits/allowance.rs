use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::whose;

/// Addresses told apart; the one that has been quiet for longest gives way.
const ADDRESSES: usize = 4096;

/// So much at once, and one more every so often, for each address by itself.
pub struct Allowance {
    most: u32,
    every: Duration,
    /// When each address will have all of its allowance again.
    whole_at: Mutex<HashMap<IpAddr, Instant>>,
}

impl fmt::Debug for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Allowance({} and one every {:?})", self.most, self.every)
    }
}

impl Allowance {
    /// `most` at once, and one more every `every`.
    pub fn new(most: u32, every: Duration) -> Self {
        Self { most, every, whole_at: Mutex::default() }
    }

    /// Takes one.
    ///
    /// # Errors
    /// There is none left: how long until there is.
    pub fn take(&self, address: IpAddr) -> Result<(), Duration> {
        let (now, address) = (Instant::now(), whose(address));
        let mut all = self.whole_at.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(&address) && all.len() >= ADDRESSES {
            all.retain(|_, whole_at| *whole_at > now);
            if all.len() >= ADDRESSES
                && let Some(first) = all.iter().min_by_key(|(_, at)| **at).map(|(it, _)| *it)
            {
                all.remove(&first);
            }
        }
        let whole_at = all.entry(address).or_insert(now);
        let after = (*whole_at).max(now) + self.every;
        let room = self.every * self.most;
        match after.duration_since(now).checked_sub(room) {
            None | Some(Duration::ZERO) => {
                *whole_at = after;
                Ok(())
            }
            Some(over) => Err(over),
        }
    }

    /// Gives one back.
    pub fn give_back(&self, address: IpAddr) {
        let mut all = self.whole_at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(whole_at) = all.get_mut(&whose(address)) {
            *whole_at = whole_at.checked_sub(self.every).unwrap_or(*whole_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_address_has_its_own_and_it_comes_back() {
        let allowance = Allowance::new(10, Duration::from_secs(6));
        let [one, two]: [IpAddr; 2] = ["192.0.2.1", "192.0.2.2"].map(|it| it.parse().unwrap());
        for _ in 0..10 {
            assert_eq!(allowance.take(one), Ok(()));
        }
        assert_eq!(allowance.take(one), Err(Duration::from_secs(6)));
        assert_eq!(allowance.take(two), Ok(()));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(allowance.take(one), Err(Duration::from_secs(4)));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(allowance.take(one), Ok(()));
        allowance.give_back(one);
        assert_eq!(allowance.take(one), Ok(()));
        assert!(allowance.take(one).is_err());
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!((0..20).filter(|_| allowance.take(one).is_ok()).count(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_network_of_addresses_takes_no_more_memory() {
        let allowance = Allowance::new(1, Duration::from_secs(60));
        for at in 0..20_000u32 {
            let _ = allowance.take(IpAddr::from(at.to_be_bytes()));
        }
        assert_eq!(allowance.whole_at.lock().unwrap().len(), ADDRESSES);
        // Of one /64, all are one.
        let of = |last: u16| IpAddr::from([0x2001, 0xdb8, 1, 2, 0, 0, 0, last]);
        assert!(allowance.take(of(1)).is_ok() && allowance.take(of(2)).is_err());
        assert_eq!(whose("::ffff:192.0.2.1".parse().unwrap()), IpAddr::from([192, 0, 2, 1]));
    }
}
