//! The `pm2_*` metrics, once for both programs, and the writer of Prometheus' text formats.
//!
//! [`families`] is the one list of names, kinds, labels and help texts; dashboards and rules are
//! checked against it. [`alerts`] is that of the alerts. [`write_states`] turns what exporters told into series: a view of what is
//! known now, so that what is gone leaves no series behind.

pub mod alerts;
pub mod compat;
pub mod families;
mod format;
pub mod relay;
mod states;
mod writer;

pub use alerts::Alert;
pub use families::{Family, Kind};
pub use format::Format;
pub use states::{Source, write_states};
pub use writer::{Labels, Samples, Writer};
