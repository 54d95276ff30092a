use std::time::Duration;

use sha2::{Digest, Sha256};
use wire::{ServerId, Time};

/// An interval has so many moments at which polls begin. Those of a moment are worked off one
/// after the other, which costs each of them much less than to wake the program up for it alone.
const MOMENTS: u64 = 100;

/// Where in the interval a server's polls begin: the same in every life of the program, and
/// spread evenly over the servers, so that no moment sees them all.
pub(super) fn offset(server: &ServerId, interval: Duration) -> Duration {
    let hash = Sha256::digest(server.as_bytes());
    let number = hash.iter().take(8).fold(0u64, |number, byte| (number << 8) | u64::from(*byte));
    let interval = interval.as_millis().max(1) as u64;
    let apart = (interval / MOMENTS).max(1);
    Duration::from_millis(number % interval / apart * apart)
}

/// How long from `now` to the next beginning.
pub(super) fn until_next(server: &ServerId, interval: Duration, now: Time) -> Duration {
    let offset = offset(server, interval).as_millis() as i64;
    let interval = interval.as_millis().max(1) as i64;
    let wait = offset.saturating_sub(now.as_millis()).rem_euclid(interval);
    Duration::from_millis(wait.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    #[test]
    fn a_hundred_servers_are_spread_over_the_interval() {
        for fleet in ["vm", "eu-west-", "10.0.0."] {
            let mut offsets: Vec<u128> = (1..=100)
                .map(|n| offset(&format!("{fleet}{n}").parse().unwrap(), INTERVAL).as_millis())
                .collect();
            offsets.sort_unstable();
            // The interval is a ring: what begins late and what begins early are neighbours.
            let again: Vec<u128> = offsets.iter().map(|offset| offset + 10_000).collect();
            let ring: Vec<u128> = offsets.iter().chain(&again).copied().collect();
            let most = ring
                .iter()
                .map(|start| ring.iter().filter(|at| (*start..start + 1000).contains(at)).count())
                .max();
            assert!(most.unwrap() <= 25, "{fleet}: {most:?}");
        }
    }

    proptest! {
        #[test]
        fn every_beginning_is_at_the_offset(id in "[a-z][a-z0-9-]{0,20}", now in 0..4_000_000_000_000i64) {
            let id: ServerId = id.parse().unwrap();
            let wait = until_next(&id, INTERVAL, Time::from_millis(now));
            prop_assert!(wait < INTERVAL);
            let at = (now as u64 + wait.as_millis() as u64) % 10_000;
            prop_assert_eq!(at, offset(&id, INTERVAL).as_millis() as u64);
        }
    }
}
