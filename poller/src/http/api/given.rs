//! What bodies about tokens and users say alike.

use service::problem::ProblemResponse;
use wire::Time;

use crate::access::{Limits, Role, end_of};
use crate::config::word;

/// Most entries of one limit.
const MOST: usize = 1000;

/// The name of a token or user.
pub(super) fn name_of(text: &str) -> Result<String, ProblemResponse> {
    word(text).map_err(|message| ProblemResponse::bad_request(format!("name: {message}")))
}

pub(super) fn role_of(text: &str) -> Result<Role, ProblemResponse> {
    text.parse().map_err(|error| ProblemResponse::bad_request(format!("role: {error}")))
}

/// Limits whose names can be those of something.
pub(super) fn checked(limits: Limits) -> Result<Limits, ProblemResponse> {
    let wrong = |message: String| Err(ProblemResponse::bad_request(message));
    for (what, names) in [("groups", &limits.groups), ("tags", &limits.tags)] {
        for name in names.iter().flatten() {
            if let Err(message) = word(name) {
                return wrong(format!("{what}: {message}"));
            }
        }
        if names.as_ref().is_some_and(|names| names.len() > MOST) {
            return wrong(format!("{what}: at most {MOST} are allowed"));
        }
    }
    if limits.servers.as_ref().is_some_and(|servers| servers.len() > MOST) {
        return wrong(format!("servers: at most {MOST} are allowed"));
    }
    Ok(limits)
}

/// The end of a life of so long.
pub(super) fn expiry(text: &str) -> Result<Time, ProblemResponse> {
    end_of(text).map_err(|error| ProblemResponse::bad_request(format!("expires: {error}")))
}
