use serde::{Deserialize, Serialize};

/// An error answer: `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A short name that programs can branch on: `unknown_app`, `unauthorized`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status, again.
    pub status: u16,
    /// One line for people: what went wrong in general.
    pub title: String,
    /// What went wrong this time: the field, the value and what is allowed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}
