//! Work that would hold polls up, on a thread apart; and what the allocator keeps of it.

use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

/// How often the thread that does everything else gives back what it keeps.
const OFTEN: Duration = Duration::from_secs(10);

/// Begins it. What its thread keeps then of the memory that it needed is given back: there are a few such
/// threads, they take turns, and in the end each would keep as much as any work ever took.
pub(crate) fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    spawn_blocking(move || {
        let done = work();
        give_back();
        done
    })
}

/// Gives back now and then, until `stop`, what this thread keeps.
pub(crate) async fn give_back_often(stop: CancellationToken) {
    let now_and_then = async {
        loop {
            tokio::time::sleep(OFTEN).await;
            give_back();
        }
    };
    stop.run_until_cancelled(now_and_then).await;
}

/// mimalloc keeps pages that are empty for who will want such pieces again, until the thread has taken some
/// thousand others.
#[allow(unsafe_code, reason = "it has no safe name")]
fn give_back() {
    // SAFETY: it takes nothing and may be called by every thread, whichever allocator is in use.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
