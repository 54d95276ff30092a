//! PM2, as seen from its sockets. Knows nothing of HTTP, and only ever looks or does what it
//! is told to: it starts no daemon and writes nothing into PM2's directory.

pub mod custom;
pub mod dump;
pub mod frame;
pub mod home;
pub mod homes;
mod last_words;
pub mod launch;
mod lenient;
pub mod model;
pub mod rpc;
pub mod table;
mod watch;

pub use home::{Home, Shared};
pub use homes::{Homes, NoHome};
pub use rpc::CallError;
pub use table::{Intent, LogFile, Table};
