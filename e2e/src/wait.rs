//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// Longest that anything is waited for that is to come at once: so much longer than it takes that
/// a machine with other work, whose caches are cold, does not run into it.
pub const SOON: Duration = Duration::from_secs(90);

/// Asks again and again until the condition gives something, and gives that.
///
/// # Errors
/// It gave nothing within `timeout`; the error says what was waited for.
pub async fn wait_until<T>(
    what: &str,
    timeout: Duration,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        // The condition may itself wait for an answer that never comes.
        let left = timeout.saturating_sub(start.elapsed());
        if let Ok(Some(value)) = tokio::time::timeout(left, condition()).await {
            return Ok(value);
        }
        if start.elapsed() >= timeout {
            anyhow::bail!("waited {timeout:?} in vain: {what}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The same for places that cannot be async, such as `Drop`.
pub fn wait_blocking(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() >= timeout {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
