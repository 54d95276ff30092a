//! What this program does not decide: the time, and chance. A simulation decides both.

use wire::Time;

/// The time.
pub(crate) fn now() -> Time {
    #[cfg(test)]
    if let Some(time) = crate::simulation::world::time() {
        return time;
    }
    Time::now()
}

/// A random number; none where there is no randomness.
pub(crate) fn random() -> Option<u32> {
    #[cfg(test)]
    if let Some(number) = crate::simulation::world::number() {
        return Some(number);
    }
    getrandom::u32().ok()
}
