//! Pages that applications serve themselves, taken apart ([`parse()`]) and put onto ours ([`write()`]):
//! one family for all that have it, every series with the labels of its application, and what cannot
//! stand beside the rest left out and counted.

mod line;
mod merge;
mod parse;

pub use merge::{Clash, Page, Relayed, write};
pub use parse::{Told, Unreadable, parse};
