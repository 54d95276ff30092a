//! What bodies about tokens, users and servers say alike.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer};
use service::problem::ProblemResponse;
use wire::{Action, ServerId, Time};

use crate::access::{Limits, Role, end_of};
use crate::config::word;

/// Absent leaves a thing as it is, null takes it away.
pub(super) type Maybe<T> = Option<Option<T>>;

/// Reads one: `#[serde(default, deserialize_with = "maybe")]`.
pub(super) fn maybe<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Maybe<T>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// Most entries of one limit.
const MOST: usize = 1000;

/// The name of a token or user.
pub(super) fn name_of(text: &str) -> Result<String, ProblemResponse> {
    word(text).map_err(|message| ProblemResponse::bad_request(format!("name: {message}")))
}

pub(super) fn role_of(text: &str) -> Result<Role, ProblemResponse> {
    text.parse().map_err(|error| ProblemResponse::bad_request(format!("role: {error}")))
}

/// The limits of somebody new.
pub(super) fn limits(
    servers: Option<Vec<ServerId>>,
    groups: Option<Vec<String>>,
    tags: Option<Vec<String>>,
    actions: Option<BTreeSet<Action>>,
) -> Result<Limits, ProblemResponse> {
    let servers = once("servers", servers)?;
    let (groups, tags) = (once("groups", groups)?, once("tags", tags)?);
    checked(Limits { servers, groups, tags, actions })
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
    }
    Ok(limits)
}

/// A list of a limit, in which each counts once, whatever is named twice.
pub(super) fn once<T: Ord>(
    what: &str,
    list: Option<Vec<T>>,
) -> Result<Option<BTreeSet<T>>, ProblemResponse> {
    if list.as_ref().is_some_and(|list| list.len() > MOST) {
        let message = format!("{what}: at most {MOST} are allowed");
        return Err(ProblemResponse::bad_request(message));
    }
    Ok(list.map(BTreeSet::from_iter))
}

/// The end of a life of so long.
pub(super) fn expiry(text: &str) -> Result<Time, ProblemResponse> {
    end_of(text).map_err(|error| ProblemResponse::bad_request(format!("expires: {error}")))
}
