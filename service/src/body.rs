//! Bodies of requests: JSON whose errors quote nothing, since a value can be a secret, and what
//! each action on an app takes, the same at both programs.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use wire::Action;

use crate::problem::ProblemResponse;

/// What the action takes, as the arguments of a [`wire::CommandRequest`]:
/// `{"env":{"A":"1"}}`, `{"signal":"SIGUSR2"}`, `{"action":"clean","params":…}`,
/// `{"instances":4}`, and nothing for the others.
///
/// # Errors
/// 400 that names what is wrong and what is expected.
pub fn arguments(action: Action, body: &[u8]) -> Result<BTreeMap<String, String>, ProblemResponse> {
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
            parse::<Nothing>(body, "no body, or {}")?;
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

/// Reads a JSON object; no body at all is an empty one.
///
/// # Errors
/// 400 that says where it is wrong and what is `expected`.
pub fn parse<T: DeserializeOwned>(body: &[u8], expected: &str) -> Result<T, ProblemResponse> {
    let body = if body.is_empty() { b"{}" } else { body };
    // serde takes a list of the fields' values as well, in the order in which a program has them.
    if body.trim_ascii_start().starts_with(b"[") {
        let detail = format!("body: is a list: expected {expected}");
        return Err(ProblemResponse::bad_request(detail));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        (path, error.into_inner())
    });
    let read = read.and_then(|value| json.end().map(|()| value).map_err(|e| (String::new(), e)));
    read.map_err(|(path, error)| {
        let what = match error.classify() {
            serde_json::error::Category::Data => wrong_shape(&path, &error.to_string()),
            _ => "is not JSON".to_owned(),
        };
        let (line, column) = (error.line(), error.column());
        let detail = format!("body: {what} (line {line}, column {column}): expected {expected}");
        ProblemResponse::bad_request(detail)
    })
}

/// serde quotes values, and a value can be a secret. The names of fields that are missing or allowed,
/// and of what was expected, are from its own lists; the place is told by names of fields alone.
fn wrong_shape(path: &str, error: &str) -> String {
    let error = error.split(" at line").next().unwrap_or_default();
    if error.starts_with("missing field") {
        return error.to_owned();
    }
    let halves = error.rsplit_once(", expected ");
    if error.starts_with("unknown field") {
        let known = halves.map_or("none", |(_, known)| known);
        return format!("has a field that is not known: there is {known}");
    }
    let path: String = path.chars().take(100).collect();
    if let Some(field) = error.strip_prefix("duplicate field `") {
        return format!("has the field {} twice", field.trim_end_matches('`'));
    }
    // What follows the value is of the programs' own, where it is not serde that quotes it.
    if !error.starts_with("invalid ")
        && let Some((_, allowed)) = error.rsplit_once(" is not a valid ")
    {
        return format!("{path}: is not a valid {allowed}");
    }
    if let Some(expected) = error.strip_prefix("expected ") {
        return format!("{path}: is not what is allowed there: {expected} is expected");
    }
    let halves = halves.map(|(what, expected)| (what, in_words(expected)));
    let Some((what, expected)) = halves else {
        return format!("{path}: is not what is allowed there");
    };
    let is = what.strip_prefix("invalid type: ").or(what.strip_prefix("invalid value: "));
    // Its kind, which stands before the value.
    let is = is.and_then(|is| is.split(['`', '"']).next()).map(str::trim).unwrap_or_default();
    match is {
        "integer" if what.starts_with("invalid value: ") => {
            format!("{path}: is out of range: {expected} is expected")
        }
        "" => format!("{path}: is not what is allowed there: {expected} is expected"),
        is => format!("{path}: is {}, and {expected} is expected", in_words(is)),
    }
}

/// What serde calls a kind of value, in words of JSON.
fn in_words(kind: &str) -> &str {
    match kind {
        "string" | "a string" => "a string",
        "boolean" | "a boolean" => "true or false",
        "sequence" | "a sequence" => "a list",
        "map" | "a map" => "an object",
        "integer" => "a whole number",
        "floating point" | "f64" => "a number",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, 0 or more",
        "i64" => "a whole number",
        _ if kind.starts_with("struct ") => "an object",
        _ => kind,
    }
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
        assert!(arguments(Action::Restart, b"").unwrap().is_empty());
        let nothing = arguments(Action::Signal, b"").unwrap_err();
        assert!(nothing.problem().detail.contains("missing field `signal`"), "{nothing:?}");
        assert!(arguments(Action::Restart, b"{}").unwrap().is_empty());
    }

    #[test]
    fn a_wrong_body_is_told_without_its_values() {
        for (action, body) in [
            (Action::Env, &br#"{"env":{"A":{"canary":1}}}"#[..]),
            (Action::Env, br#"{"env":"canary"}"#),
            (Action::Env, b"canary"),
            (Action::Env, br#" [{"A":"canary"}]"#),
            (Action::Scale, b"[4]"),
            (Action::Signal, br#"{"signal":"SIGHUP","canary":1}"#),
            (Action::Scale, br#"{"instances":-1}"#),
            (Action::Restart, br#"{"canary":1}"#),
            (Action::Restart, b"\n"),
        ] {
            let detail = arguments(action, body).unwrap_err().problem().detail.clone();
            assert!(detail.contains("expected") && !detail.contains("canary"), "{detail}");
        }
        for (body, told) in [
            (
                r#"{"instances":"canary"}"#,
                "instances: is a string, and a whole number from 0 to 4294967295 is expected",
            ),
            (r#"{"instances":"x is not a valid canary"}"#, "instances: is a string, and"),
            (r#"{"instances":"duplicate field `canary"}"#, "instances: is a string, and"),
            (r#"{"instances":-1}"#, "instances: is out of range: a whole number from 0 to 42949"),
            (r#"{"instances":1,"instances":2}"#, "body: has the field instances twice"),
            (r#"{"instances":null}"#, "instances: is null, and a whole number from"),
            (r#"{"instances":4} canary"#, "is not JSON"),
        ] {
            let detail = arguments(Action::Scale, body.as_bytes()).unwrap_err();
            let detail = &detail.problem().detail;
            assert!(detail.contains(told) && !detail.contains("canary"), "{detail}");
        }
        #[derive(Debug, Deserialize)]
        struct Where {
            #[expect(dead_code, reason = "it is read only")]
            server: wire::ServerId,
        }
        for value in ["a canary", " is not a valid canary is not a valid x"] {
            let body = serde_json::json!({ "server": value }).to_string();
            let detail = parse::<Where>(body.as_bytes(), "…").unwrap_err().problem().detail.clone();
            assert!(
                detail.starts_with("body: server: is not a valid server id: 1 to 128"),
                "{detail}"
            );
            assert!(!detail.contains("canary"), "{detail}");
        }
        let more = arguments(Action::Scale, br#"{"instances":1,"canary":1}"#).unwrap_err();
        assert!(more.problem().detail.contains("there is `instances`"), "{more:?}");
    }
}
