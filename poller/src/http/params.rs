//! Query parameters: each parsed by name, unknown ones told. An empty one counts as absent:
//! forms send every field.

use std::str::FromStr;
use std::time::Duration;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use service::problem::ProblemResponse;
use wire::{InvalidId, MAX_LIMIT, Time};

/// The parameters of a request, taken out one by one.
#[derive(Debug)]
pub(super) struct Params {
    given: Vec<(String, String)>,
    known: Vec<&'static str>,
}

/// One line that names the parameter, the value and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong(pub(super) String);

impl From<Wrong> for ProblemResponse {
    fn from(wrong: Wrong) -> Self {
        Self::bad_request(wrong.0)
    }
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = ProblemResponse;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ProblemResponse> {
        Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map(|Query(given)| Self { given, known: Vec::new() })
            .map_err(|error| ProblemResponse::bad_request(format!("query: {error}")))
    }
}

impl Params {
    /// What a parameter was given as, if it was; it stays to be taken.
    pub(super) fn given(&self, name: &str) -> String {
        let given = self.given.iter().find(|(key, _)| key == name);
        given.map(|(_, value)| value.clone()).unwrap_or_default()
    }

    /// Every value of a parameter that may come several times.
    pub(super) fn all(&mut self, name: &'static str) -> Vec<String> {
        self.known.push(name);
        let mut values = Vec::new();
        self.given.retain(|(key, value)| {
            if key == name && !value.is_empty() {
                values.push(value.clone());
            }
            key != name
        });
        values
    }

    /// A text.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>, Wrong> {
        let mut values = self.all(name);
        if values.len() > 1 {
            return Err(Wrong(format!("{name}: is given twice")));
        }
        Ok(values.pop())
    }

    /// A value, parsed by `parse`, which says what is wrong.
    pub(super) fn parsed<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Wrong> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        parse(&text).map(Some).map_err(|message| Wrong(format!("{name}: {message}")))
    }

    /// A name.
    pub(super) fn name<T: FromStr<Err = InvalidId>>(
        &mut self,
        name: &'static str,
    ) -> Result<Option<T>, Wrong> {
        self.parsed(name, |text| text.parse().map_err(|error: InvalidId| error.to_string()))
    }

    /// A moment: RFC 3339, or a duration, which counts back from `now`.
    pub(super) fn time(&mut self, name: &'static str, now: Time) -> Result<Option<Time>, Wrong> {
        self.parsed(name, |text| {
            if let Ok(time) = text.parse() {
                return Ok(time);
            }
            let ago = service::quantity::duration(text).map_err(|_| {
                let shown: String = text.chars().take(64).collect();
                format!(
                    "{shown:?} is neither a time such as 2026-01-31T12:00:00Z, of the years 1 to \
                     9998, nor a duration such as 24h, of 100y at most"
                )
            })?;
            Ok(now.plus_millis(-(ago.as_millis() as i64)))
        })
    }

    /// A duration of at most `most`.
    pub(super) fn duration(
        &mut self,
        name: &'static str,
        most: Duration,
    ) -> Result<Option<Duration>, Wrong> {
        self.parsed(name, |text| {
            let value = service::quantity::duration(text)?;
            if value > most {
                return Err(format!("{text:?} is too long: at most {most:?}"));
            }
            Ok(value)
        })
    }

    /// `true` or `false`.
    pub(super) fn truth(&mut self, name: &'static str) -> Result<Option<bool>, Wrong> {
        self.parsed(name, service::quantity::truth)
    }

    /// `limit`: 1 to 10,000.
    pub(super) fn limit(&mut self, default: usize) -> Result<usize, Wrong> {
        let limit = self.parsed("limit", |text| match text.parse() {
            Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
            _ => {
                let shown: String = text.chars().take(64).collect();
                Err(format!("{shown:?} is not a number from 1 to {MAX_LIMIT}"))
            }
        })?;
        Ok(limit.unwrap_or(default))
    }

    /// `cursor`: what an earlier page gave.
    pub(super) fn cursor<T>(
        &mut self,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Wrong> {
        self.parsed("cursor", |text| {
            let shown: String = text.chars().take(64).collect();
            parse(text).ok_or_else(|| format!("{shown:?} is not a cursor that an answer gave"))
        })
    }

    /// There is nothing else.
    pub(super) fn end(self) -> Result<(), Wrong> {
        let Some((name, _)) = self.given.first() else { return Ok(()) };
        let shown: String = name.chars().take(64).collect();
        if self.known.is_empty() {
            return Err(Wrong(format!("{shown:?} is not a parameter here: there are none")));
        }
        let known = self.known.join(", ");
        Err(Wrong(format!("{shown:?} is not a parameter here; known are {known}")))
    }
}

/// The cursor of a list of events: time and number.
pub(super) fn event_cursor(text: &str) -> Option<(Time, i64)> {
    let (time, id) = text.split_once('.')?;
    Some((Time::from_millis(time.parse().ok()?), id.parse().ok()?))
}

/// The same, written.
pub(super) fn to_event_cursor(time: Time, id: i64) -> String {
    format!("{}.{id}", time.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        let uri: axum::http::Uri = format!("http://x/?{query}").parse().unwrap();
        let Query(given) = Query::try_from_uri(&uri).unwrap();
        Params { given, known: Vec::new() }
    }

    #[test]
    fn wrong_ones_name_field_value_and_what_is_allowed() {
        let wrong = |result: Result<(), Wrong>| result.unwrap_err().0;
        assert_eq!(
            wrong(params("limit=0").limit(5).map(drop)),
            "limit: \"0\" is not a number from 1 to 10000"
        );
        let mut two = params("limit=1&limit=2");
        assert_eq!(wrong(two.limit(5).map(drop)), "limit: is given twice");
        let mut server = params("server=a%20b");
        let message = wrong(server.name::<wire::ServerId>("server").map(drop));
        assert!(message.starts_with("server: \"a b\" is not a valid server id"), "{message}");
        let mut unknown = params("q=1&grop=a");
        let _ = unknown.text("q");
        assert_eq!(wrong(unknown.end()), "\"grop\" is not a parameter here; known are q");
    }

    #[test]
    fn empty_ones_count_as_absent() {
        let mut params = params("q=&limit=&server=");
        assert_eq!(params.text("q"), Ok(None));
        assert_eq!(params.limit(7), Ok(7));
        assert_eq!(params.name::<wire::ServerId>("server"), Ok(None));
        assert_eq!(params.end(), Ok(()));
    }

    #[test]
    fn times_may_be_ages() {
        let now = Time::from_millis(100_000_000);
        assert_eq!(params("since=1h").time("since", now), Ok(Some(now.plus_millis(-3_600_000))));
        let at = params("since=1970-01-02T00:00:00Z").time("since", now);
        assert_eq!(at, Ok(Some(Time::from_millis(86_400_000))));
        assert!(params("since=yesterday").time("since", now).is_err());
    }
}
