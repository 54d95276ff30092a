//! Work that is done for one at a time, as it takes much, and for which few wait.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// How many have or wait for their turn.
const WAITING: usize = 16;

/// Too many wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// See the module.
#[derive(Debug)]
pub struct Turns {
    turn: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), waiting: Arc::new(Semaphore::new(WAITING)) }
    }
}

impl Turns {
    /// What comes of `work`, which has a thread of its own. Once begun it keeps its turn to its end,
    /// even if whoever asked for it has gone: going must not make room for more of it.
    ///
    /// # Errors
    /// Too many wait, or the work panicked.
    pub async fn take<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let place = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| Busy)?;
        let turn = Arc::clone(&self.turn).acquire_owned().await.map_err(|_| Busy)?;
        let work = move || {
            let _held = (turn, place);
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Busy)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn few_wait_and_the_rest_is_turned_away() {
        let turns = Arc::new(Turns::default());
        let (end, ended) = channel();
        let turns_of_first = Arc::clone(&turns);
        let first = tokio::spawn(async move { turns_of_first.take(move || ended.recv()).await });
        let mut others = Vec::new();
        for at in 0..100 {
            let turns = Arc::clone(&turns);
            others.push(tokio::spawn(async move { turns.take(move || at).await }));
        }
        // Each asks as soon as others may run; nobody's place is given back before all have asked.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        end.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Ok(Ok(())));
        let mut done = Vec::new();
        for other in others {
            done.extend(other.await.unwrap());
        }
        assert_eq!(done, (0..WAITING - 1).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn who_goes_away_makes_no_room_for_another_before_the_work_has_ended() {
        let turns = Turns::default();
        let (end, ended) = channel::<()>();
        assert!(timeout(MOMENT, turns.take(move || ended.recv())).await.is_err(), "it runs");
        assert!(timeout(MOMENT, turns.take(|| 1)).await.is_err(), "the first runs on");
        // Who only waits and goes gives the place back.
        assert_eq!(turns.waiting.available_permits(), WAITING - 1);
        drop(end);
        assert_eq!(turns.take(|| 2).await, Ok(2));
        assert_eq!(turns.waiting.available_permits(), WAITING);
    }
}
