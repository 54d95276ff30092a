use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Headers are being read; a connection begins so.
    Head,
    /// It is between requests.
    Quiet,
    /// The rest of a request's body is awaited.
    Body,
    /// A handler has the request.
    Asked,
    /// A handler has the request, and waits for something to happen.
    Waiting,
    /// An answer is being sent.
    Answer,
    /// An answer is being sent whose length nobody knows: it may go on for as long as it is read.
    Stream,
    /// The answer has ended; what is written of it may still have to be taken.
    Ended,
}

/// How little a connection is needed: the first of these gives way to another connection first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    Head,
    Quiet,
    Body,
    /// Its request waits for something to happen.
    Waiting,
    /// Nobody takes what is written.
    Stalled,
    Stream,
}

/// What a connection is doing, told by the service, the bodies and the stream beneath them.
#[derive(Clone, Debug)]
pub(crate) struct Phase(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    doing: Doing,
    since: Instant,
    stalled: Option<Instant>,
}

impl Phase {
    pub(crate) fn new() -> Self {
        let state = State { doing: Doing::Head, since: Instant::now(), stalled: None };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self) -> Doing {
        self.state().doing
    }

    pub(crate) fn set(&self, doing: Doing) {
        let mut state = self.state();
        (state.doing, state.since) = (doing, Instant::now());
    }

    /// From one to the other; nothing when it is doing something else.
    pub(crate) fn change(&self, from: Doing, to: Doing) {
        let mut state = self.state();
        if state.doing == from {
            (state.doing, state.since) = (to, Instant::now());
        }
    }

    /// Whether what is written has to wait for its reader.
    pub(crate) fn stalled(&self, stalled: bool) {
        let mut state = self.state();
        state.stalled = stalled.then(|| state.stalled.unwrap_or_else(Instant::now));
    }

    /// How little it is needed, and since when; `None` while it is at work. A request that is not
    /// answered within `waits_after` waits, whether its handler says so or not.
    pub(crate) fn need(&self, waits_after: Duration) -> Option<(Need, Instant)> {
        let state = self.state();
        let need = match state.doing {
            Doing::Head => Need::Head,
            Doing::Quiet => Need::Quiet,
            Doing::Body => Need::Body,
            Doing::Waiting => Need::Waiting,
            Doing::Asked if state.since.elapsed() >= waits_after => Need::Waiting,
            Doing::Asked => return None,
            Doing::Answer | Doing::Stream | Doing::Ended if state.stalled.is_some() => {
                return Some((Need::Stalled, state.stalled?));
            }
            Doing::Stream => Need::Stream,
            Doing::Answer | Doing::Ended => return None,
        };
        Some((need, state.since))
    }
}

/// An extension of every request, by which a handler says that it waits for something to happen: its
/// connection gives way at once to others, where there are too many.
#[derive(Clone, Debug)]
pub struct Waits(Phase);

impl Waits {
    pub(crate) fn new(phase: Phase) -> Self {
        Self(phase)
    }

    /// From now to the beginning of the answer.
    pub fn begin(&self) {
        self.0.change(Doing::Asked, Doing::Waiting);
    }
}
