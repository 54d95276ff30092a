//! Query parameters: each parsed by name, unknown ones told.

use std::time::Duration;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use service::problem::ProblemResponse;

use super::MAX_WAIT;

/// Longest name of somebody, in characters.
const MAX_NAME: usize = 64;

/// The parameters of a request, taken out one by one.
pub(super) struct Parameters(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = ProblemResponse;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ProblemResponse> {
        Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map(|Query(all)| Self(all))
            .map_err(|error| ProblemResponse::bad_request(format!("query: {error}")))
    }
}

impl Parameters {
    /// The parameter's value, parsed; `None` when it is not given.
    pub(super) fn take<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ProblemResponse> {
        let Some(at) = self.0.iter().position(|(key, _)| key == name) else { return Ok(None) };
        let (_, value) = self.0.swap_remove(at);
        if self.0.iter().any(|(key, _)| key == name) {
            return Err(ProblemResponse::bad_request(format!("{name}: is given twice")));
        }
        parse(&value).map(Some).map_err(|m| ProblemResponse::bad_request(format!("{name}: {m}")))
    }

    /// A whole number from 0.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<u64>, ProblemResponse> {
        self.take(name, |text| {
            text.parse().map_err(|_| format!("{:?} is not a whole number", shown(text)))
        })
    }

    /// `true` or `false`.
    pub(super) fn truth(&mut self, name: &str) -> Result<Option<bool>, ProblemResponse> {
        self.take(name, service::quantity::truth)
    }

    /// `wait`, at most [`MAX_WAIT`].
    pub(super) fn wait(&mut self) -> Result<Option<Duration>, ProblemResponse> {
        self.take("wait", |text| {
            let wait = service::quantity::duration(text)?;
            if wait > MAX_WAIT {
                return Err(format!("{text:?} is too long: at most {}s", MAX_WAIT.as_secs()));
            }
            Ok(wait)
        })
    }

    /// `pm2_home`, the directory of the PM2 that is meant; whether it is watched is looked at by
    /// who looks it up.
    pub(super) fn pm2_home(&mut self) -> Result<Option<String>, ProblemResponse> {
        self.take("pm2_home", |text| match text.len() {
            1..=4096 => Ok(text.to_owned()),
            _ => Err(format!("{:?} is not a directory", shown(text))),
        })
    }

    /// `by`, the name of whoever asked the program that asks here.
    pub(super) fn by(&mut self) -> Result<Option<String>, ProblemResponse> {
        self.take("by", |text| {
            let one_line = text.trim() == text && !text.chars().any(char::is_control);
            if !one_line || !(1..=MAX_NAME).contains(&text.chars().count()) {
                let shown = shown(text);
                return Err(format!(
                    "{shown:?} is not allowed: 1 to {MAX_NAME} characters, no control characters, \
                     and no space at the ends"
                ));
            }
            Ok(text.to_owned())
        })
    }

    /// There is nothing else.
    pub(super) fn end(self, known: &str) -> Result<(), ProblemResponse> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(ProblemResponse::bad_request(format!(
                "{:?} is not a parameter here; known are {known}",
                shown(name)
            ))),
        }
    }
}

/// No parameter at all.
pub(super) struct NoParameters;

impl<S: Sync> FromRequestParts<S> for NoParameters {
    type Rejection = ProblemResponse;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ProblemResponse> {
        Parameters::from_request_parts(parts, state).await?.end("none")?;
        Ok(Self)
    }
}

pub(super) fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}
