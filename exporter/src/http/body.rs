//! Bodies of the short form `POST /api/processes/{name}/{action}`.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use service::problem::ProblemResponse;
use wire::Action;

/// A whole body within the limit.
pub(super) struct Body(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ProblemResponse;

    async fn from_request(request: Request, state: &S) -> Result<Self, ProblemResponse> {
        Bytes::from_request(request, state).await.map(Self).map_err(|rejection| {
            match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => ProblemResponse::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "too_large",
                    format!("body: is larger than {} KiB", super::MAX_REQUEST / 1024),
                ),
                _ => ProblemResponse::bad_request(format!("body: {}", rejection.body_text())),
            }
        })
    }
}

/// What the action takes, as the arguments of a [`wire::CommandRequest`]:
/// `{"env":{"A":"1"}}`, `{"signal":"SIGUSR2"}`, `{"action":"clean","params":…}`,
/// `{"instances":4}`, and nothing for the others.
pub(super) fn arguments(
    action: Action,
    body: &[u8],
) -> Result<BTreeMap<String, String>, ProblemResponse> {
    let one = |name: &str, value: String| BTreeMap::from([(name.to_owned(), value)]);
    match action {
        Action::Env => Ok(parse::<Env>(body, "{\"env\":{\"NAME\":\"value\"}}")?.env),
        Action::Signal => {
            Ok(one("signal", parse::<Signal>(body, "{\"signal\":\"SIGUSR2\"}")?.signal))
        }
        Action::Trigger => {
            let trigger: Trigger = parse(body, "{\"action\":\"name\",\"params\":\"…\"}")?;
            let mut arguments = one("action", trigger.action);
            match trigger.params {
                Value::Null => {}
                Value::String(text) => _ = arguments.insert("params".to_owned(), text),
                other => _ = arguments.insert("params".to_owned(), other.to_string()),
            }
            Ok(arguments)
        }
        Action::Scale => {
            let scale: Scale = parse(body, "{\"instances\":4}")?;
            Ok(one("instances", scale.instances.to_string()))
        }
        _ => {
            let text = body.trim_ascii();
            if !text.is_empty() {
                parse::<Nothing>(text, "no body, or {}")?;
            }
            Ok(BTreeMap::new())
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Env {
    env: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signal {
    signal: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Trigger {
    action: String,
    #[serde(default)]
    params: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scale {
    instances: u32,
}

/// Reads JSON; an error says where it is wrong and what is expected, and quotes nothing.
pub(super) fn parse<T: DeserializeOwned>(
    body: &[u8],
    expected: &str,
) -> Result<T, ProblemResponse> {
    serde_json::from_slice(body).map_err(|error| {
        // serde's message can quote a value, and a value can be a secret.
        let at = format!("line {}, column {}", error.line(), error.column());
        let kind = match error.classify() {
            serde_json::error::Category::Data => "is not of the right shape",
            _ => "is not JSON",
        };
        ProblemResponse::bad_request(format!("body: {kind} at {at}: expected {expected}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_action_has_its_body() {
        let env = arguments(Action::Env, br#"{"env":{"A":"1"}}"#).unwrap();
        assert_eq!(env["A"], "1");
        let trigger = arguments(Action::Trigger, br#"{"action":"x","params":{"a":1}}"#).unwrap();
        assert_eq!(trigger["params"], "{\"a\":1}");
        assert_eq!(arguments(Action::Scale, br#"{"instances":4}"#).unwrap()["instances"], "4");
        assert!(arguments(Action::Restart, b" ").unwrap().is_empty());
        assert!(arguments(Action::Restart, b"{}").unwrap().is_empty());
    }

    #[test]
    fn a_wrong_body_is_told_without_its_values() {
        for (action, body) in [
            (Action::Env, &br#"{"env":{"A":{"canary":1}}}"#[..]),
            (Action::Env, br#"{"env":"canary"}"#),
            (Action::Env, b"canary"),
            (Action::Signal, br#"{"signal":"SIGHUP","canary":1}"#),
            (Action::Scale, br#"{"instances":-1}"#),
            (Action::Restart, br#"{"canary":1}"#),
        ] {
            let detail = arguments(action, body).unwrap_err().problem().detail.clone();
            assert!(detail.contains("expected") && !detail.contains("canary"), "{detail}");
        }
    }
}
