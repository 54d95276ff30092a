//! Work on files whose file system may not answer, such as one in a network: on a thread of its own,
//! waited for only so long, and never begun twice.

use std::time::Duration;

use tokio::task::JoinHandle;

/// How long it is waited for before all else goes on.
const PATIENCE: Duration = Duration::from_secs(2);

/// What may still be under way.
#[derive(Debug)]
pub(crate) struct Pending<T>(Option<JoinHandle<T>>);

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Send + 'static> Pending<T> {
    /// Whether something is.
    pub(crate) fn is_running(&self) -> bool {
        self.0.is_some()
    }

    /// What was begun before and has not ended, or what `begin` gives to do. `None` while that takes
    /// longer than [`PATIENCE`]: it goes on, and the log says once that `what` is not read.
    pub(crate) async fn ended<F>(&mut self, what: &str, begin: impl FnOnce() -> F) -> Option<T>
    where
        F: FnOnce() -> T + Send + 'static,
    {
        let is_new = !self.is_running();
        let running = self.0.get_or_insert_with(|| crate::apart::spawn(begin()));
        let Ok(ended) = tokio::time::timeout(PATIENCE, running).await else {
            if is_new {
                tracing::warn!("{what}: not read yet, its file system does not answer");
            }
            return None;
        };
        self.0 = None;
        ended.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_takes_long_is_not_waited_for_and_not_begun_twice() {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let mut pending = Pending::default();
        assert_eq!(pending.ended("it", || move || receiver.recv().is_ok()).await, None);
        assert!(pending.is_running());
        sender.send(()).unwrap();
        let twice = || -> fn() -> bool { panic!("begun twice") };
        assert_eq!(pending.ended("it", twice).await, Some(true));
        assert_eq!(pending.ended("it", || || false).await, Some(false));
    }
}
