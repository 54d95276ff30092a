//! Slots against real git, real npm and real PM2.

mod bench;
mod crash;
mod deploy;
mod failures;
mod hostile;
mod stage;
mod workspace;
