//! The OpenAPI document of a program: written by hand in YAML, its own part and the shapes that
//! both share; served as JSON and as a page. The tests hold every answer against it.

mod page;

use std::sync::OnceLock;

use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use serde_json::{Map, Value};

/// A document, put together when it is first asked for.
#[derive(Debug)]
pub struct Document {
    parts: &'static [&'static str],
    version: &'static str,
    value: OnceLock<Result<Value, String>>,
}

impl Document {
    /// Of these texts: later ones add to earlier ones.
    pub const fn new(parts: &'static [&'static str], version: &'static str) -> Self {
        Self { parts, version, value: OnceLock::new() }
    }

    /// The document.
    ///
    /// # Errors
    /// A part is no YAML: a mistake in this repository, which the tests find.
    pub fn value(&self) -> Result<&Value, &str> {
        self.value.get_or_init(|| self.made()).as_ref().map_err(String::as_str)
    }

    fn made(&self) -> Result<Value, String> {
        let mut all = Value::Object(Map::new());
        for part in self.parts {
            let table = crate::yaml::table(part)?;
            add(&mut all, serde_json::to_value(table).map_err(|error| error.to_string())?);
        }
        if let Some(version) = all.pointer_mut("/info/version") {
            *version = Value::String(self.version.to_owned());
        }
        everywhere(&mut all);
        Ok(all)
    }

    /// `GET /api/openapi.json`
    pub fn json(&self) -> Response {
        match self.value() {
            Ok(value) => axum::Json(value).into_response(),
            Err(why) => broken(why),
        }
    }

    /// `GET /api/docs`
    pub fn page(&self) -> Response {
        let value = match self.value() {
            Ok(value) => value,
            Err(why) => return broken(why),
        };
        let mut response = Html(page::write(value)).into_response();
        let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; \
                      base-uri 'none'";
        response
            .headers_mut()
            .insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
        response
    }
}

fn broken(why: &str) -> Response {
    tracing::error!("the OpenAPI document is broken: {why}");
    axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

/// Adds `more` to `all`: tables are joined, everything else is replaced.
fn add(all: &mut Value, more: Value) {
    match (all, more) {
        (Value::Object(all), Value::Object(more)) => {
            for (key, value) in more {
                match all.get_mut(&key) {
                    Some(there) => add(there, value),
                    None => _ = all.insert(key, value),
                }
            }
        }
        (all, more) => *all = more,
    }
}

/// Gives every operation the answers under `x-everywhere` that it does not have itself.
fn everywhere(all: &mut Value) {
    let Some(table) = all.as_object_mut() else { return };
    let Some(Value::Object(common)) = table.remove("x-everywhere") else { return };
    let Some(Value::Object(paths)) = table.get_mut("paths") else { return };
    for operations in paths.values_mut() {
        let Value::Object(operations) = operations else { continue };
        for operation in operations.values_mut() {
            if let Some(Value::Object(responses)) = operation.get_mut("responses") {
                for (status, answer) in &common {
                    responses.entry(status).or_insert_with(|| answer.clone());
                }
            }
        }
    }
}
