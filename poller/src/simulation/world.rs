//! Time and chance of a simulation: both are those of the thread that it runs on.

use std::cell::Cell;

use tokio::time::Instant;
use wire::Time;

thread_local! {
    static CLOCK: Cell<Option<(Time, Instant)>> = const { Cell::new(None) };
    static CHANCE: Cell<Option<Chance>> = const { Cell::new(None) };
}

/// From here on, time goes with the runtime's paused clock, and chance follows from the seed.
pub(crate) fn begin(seed: u64) {
    CLOCK.set(Some((Time::from_millis(1_700_000_000_000), Instant::now())));
    CHANCE.set(Some(Chance::new(seed, 0)));
}

/// The simulated time, on a thread that simulates.
pub(crate) fn time() -> Option<Time> {
    let (begin, since) = CLOCK.get()?;
    Some(begin.plus_millis(since.elapsed().as_millis() as i64))
}

/// A number of the program's own chance.
pub(crate) fn number() -> Option<u32> {
    let mut chance = CHANCE.get()?;
    let number = chance.next() as u32;
    CHANCE.set(Some(chance));
    Some(number)
}

/// Keeps the simulated time where it is while something happens that takes real time: SQLite
/// works on threads of its own, of which a paused clock knows nothing.
#[derive(Debug)]
pub(crate) struct Hold(#[allow(dead_code, reason = "its end is a message")] Option<Sender>);

type Sender = std::sync::mpsc::Sender<()>;

/// See [`Hold`]. Does nothing on a thread that does not simulate.
pub(crate) fn hold() -> Hold {
    if CLOCK.get().is_none() {
        return Hold(None);
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    // A paused clock stands as long as a blocking task runs.
    tokio::task::spawn_blocking(move || receiver.recv());
    Hold(Some(sender))
}

/// Random numbers that follow from a seed (splitmix64). Each actor has a row of its own, so that
/// the order in which they act changes none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64, actor: u64) -> Self {
        let mut chance = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ actor.rotate_left(32));
        chance.next();
        chance
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `most`.
    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.next() % most.max(1)
    }

    /// In so many of a hundred cases.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A pause of this length on average, in milliseconds: between a tenth and nearly twice.
    pub(crate) fn about(&mut self, millis: u64) -> std::time::Duration {
        std::time::Duration::from_millis(millis / 10 + self.below(millis * 9 / 5))
    }
}
