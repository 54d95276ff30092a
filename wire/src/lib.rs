//! What `pm2-exporter` and `pm2-poller` say to each other.
//!
//! Shapes only: serde types that are valid by construction, no I/O, no policy. A type here is
//! part of the HTTP contract of both programs; JSON is snake_case, times are RFC 3339 in UTC,
//! and an absent reading is an absent field, never a zero.

mod command;
mod deployment;
mod event;
mod ids;
mod journal;
mod problem;
mod process;
mod slot;
mod state;
mod time;
mod variable;

pub use command::{Action, CommandRecord, CommandRequest, CommandStatus, InstanceOutcome, Target};
pub use deployment::{
    CommandLine, DeployRequest, Deployment, DeploymentList, DeploymentStatus, EnvRequest,
    SlotRequest,
};
pub use event::{Event, EventKind, Severity};
pub use ids::{AppName, CommandId, InvalidId, ServerId, SlotId};
pub use journal::{Entry, JournalPage, JournalPosition, Record, Sample, SampledProcess};
pub use problem::Problem;
pub use process::{
    AppGroup, CustomMetric, ExitInfo, Instance, Process, ProcessList, Readings, RestartCause,
    RestartCounts, Status,
};
pub use slot::{PortOwner, Slot, SlotList, SlotMore, SlotType};
/// A text that is mostly short: up to 23 bytes cost no memory of their own. Names are these, since
/// all that an exporter says of a process repeats them.
pub use smol_str::SmolStr;
pub use state::{ExporterInfo, HostReadings, Pm2State, State, TokenExpiry};
pub use time::{InvalidTime, Time};
pub use variable::loads_code;

/// Most items that one answer may list (`limit=` of every long list).
pub const MAX_LIMIT: usize = 10_000;

/// Largest body, in bytes after decompression, that the poller accepts from an exporter
/// (TARGETS P3), and so the largest that the exporter may build.
pub const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

/// The shapes of this crate as OpenAPI components, in YAML.
pub const OPENAPI: &str = include_str!("../openapi.yaml");
