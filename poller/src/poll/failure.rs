use std::fmt;

use crate::client::CallError;

/// Why a poll failed: also the label that it is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No connection.
    Connect,
    /// The poll's time was over.
    Timeout,
    /// The connection broke.
    Broken,
    /// The exporter does not accept the token, or there is none to send.
    Unauthorized,
    /// Another status than 200; redirects are among them.
    Status,
    /// A larger body than allowed.
    TooLarge,
    /// Not the JSON of a journal page.
    Malformed,
    /// Numbers or epoch of the entries do not fit together.
    Journal,
    /// A time in the future.
    FutureTime,
    /// A negative value, or one that is no number.
    Value,
    /// More processes, longer names or more of something else than allowed.
    Limits,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::Connect,
        Self::Timeout,
        Self::Broken,
        Self::Unauthorized,
        Self::Status,
        Self::TooLarge,
        Self::Malformed,
        Self::Journal,
        Self::FutureTime,
        Self::Value,
        Self::Limits,
    ];

    /// The word used in labels and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Unauthorized => "unauthorized",
            Self::Status => "status",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::Journal => "journal",
            Self::FutureTime => "future_time",
            Self::Value => "value",
            Self::Limits => "limits",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A poll that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why, to branch on and count.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
}

impl Failure {
    /// One line, without control characters and cut to 500: it may quote what a server said.
    pub fn new(reason: Reason, message: impl fmt::Display) -> Self {
        let message = message.to_string();
        let message = message.chars().filter(|c| !c.is_control()).take(500).collect();
        Self { reason, message }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let reason = match &error {
            CallError::Connect(_) => Reason::Connect,
            CallError::Timeout(_) => Reason::Timeout,
            CallError::TooLarge(_) => Reason::TooLarge,
            CallError::Broken(_) => Reason::Broken,
            CallError::Credential(_) => Reason::Unauthorized,
        };
        Self::new(reason, error)
    }
}
