//! What tokens and users are given alike, over HTTP and at the command line.

use std::time::Duration;

use wire::Time;

use super::{Limits, Role};

/// The longest life.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 86_400);

/// The end of a life of so long (`90d`) that begins now.
///
/// # Errors
/// It is no duration, nothing, or more than ten years.
pub fn end_of(life: &str) -> Result<Time, String> {
    let time = service::quantity::duration(life)?;
    if time.is_zero() || time > LONGEST {
        return Err(format!("{life:?} is out of range: more than nothing, at most 10y"));
    }
    Ok(Time::now().plus_millis(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)))
}

/// Until when something is good, in words.
pub fn until(expires_at: Option<Time>) -> String {
    expires_at.map_or("for ever".to_owned(), |end| format!("until {end}"))
}

/// All of it in words, for people and the audit.
pub fn described(role: Role, limits: &Limits, expires_at: Option<Time>) -> String {
    format!("{role}, {}, {}", limits.words(), until(expires_at))
}
