use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// How many of something each caller holds: one holds so many at most, and keeps nobody else from
/// them. Memory is bounded by what is held.
#[derive(Clone, Debug)]
pub struct Shares<K: Eq + Hash> {
    of_one: usize,
    held: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Clone + Eq + Hash> Shares<K> {
    /// So many for one.
    pub fn new(of_one: usize) -> Self {
        Self { of_one, held: Arc::default() }
    }

    /// One more for that caller, until it is dropped; `None` where they hold as many as they may.
    pub fn take(&self, caller: K) -> Option<Share<K>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(caller.clone()).or_default();
        if *count >= self.of_one {
            return None;
        }
        *count += 1;
        Some(Share { all: self.clone(), caller })
    }
}

/// One that is held.
#[derive(Debug)]
pub struct Share<K: Eq + Hash> {
    all: Shares<K>,
    caller: K,
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self.all.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_holds_so_many_and_gives_them_back() {
        let shares = Shares::new(3);
        let mut held: Vec<_> = (0..3).map(|_| shares.take("a").unwrap()).collect();
        assert!(shares.take("a").is_none() && shares.take("b").is_some());
        held.pop();
        held.push(shares.take("a").unwrap());
        assert!(shares.take("a").is_none());
        drop(held);
        assert!(shares.held.lock().unwrap().is_empty());
        assert!(Shares::new(0).take("a").is_none());
    }
}
