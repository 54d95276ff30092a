//! Holds every answer of the programs against their OpenAPI documents: what a test is answered must
//! be in the document, status, type and shape, with no field that it does not name.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use anyhow::{Context, bail, ensure};
use jsonschema::Validator;
use serde_json::{Value, json};
use service::openapi::Document;

use crate::setup::workspace;

/// The document of one program, ready to be held against.
#[derive(Debug)]
pub struct Contract {
    document: Value,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

/// That of `pm2-exporter` or `pm2-poller`, if it is one of them and has one.
///
/// # Panics
/// Its document is broken.
pub fn of(program: &str) -> Option<&'static Contract> {
    static EXPORTER: LazyLock<Option<Contract>> = LazyLock::new(|| Contract::read("exporter"));
    static POLLER: LazyLock<Option<Contract>> = LazyLock::new(|| Contract::read("poller"));
    match program {
        "pm2-exporter" => EXPORTER.as_ref(),
        "pm2-poller" => POLLER.as_ref(),
        _ => None,
    }
}

impl Contract {
    fn read(folder: &str) -> Option<Self> {
        let text = std::fs::read_to_string(workspace().join(folder).join("openapi.yaml")).ok()?;
        // Once a process, and for all of its life.
        let parts: &'static [&'static str] =
            Vec::leak(vec![wire::OPENAPI, String::leak(text) as &'static str]);
        let document = Document::new(parts, "0");
        #[expect(clippy::panic, reason = "a broken document must not pass for none")]
        match document.value() {
            Ok(value) => Some(Self::new(value)),
            Err(why) => panic!("{folder}/openapi.yaml: {why}"),
        }
    }

    /// Of a document.
    pub fn new(document: &Value) -> Self {
        let mut document = document.clone();
        for schemas in ["/components", "/paths"] {
            if let Some(part) = document.pointer_mut(schemas) {
                close(part);
            }
        }
        Self { document, validators: Mutex::default() }
    }

    /// Every operation: method in capitals, and path.
    pub fn operations(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for (path, operations) in self.document["paths"].as_object().into_iter().flatten() {
            for method in operations.as_object().into_iter().flatten().map(|(method, _)| method) {
                if method != "parameters" {
                    all.push((method.to_uppercase(), path.clone()));
                }
            }
        }
        all
    }

    /// Whether an answer is one of those that the document knows. Paths that it does not have are
    /// not looked at but for their being refused.
    ///
    /// # Errors
    /// What of it is not in the document.
    pub fn check(
        &self,
        method: &str,
        path: &str,
        status: u16,
        kind: &str,
        body: &str,
    ) -> anyhow::Result<()> {
        let path = path.split('?').next().unwrap_or_default();
        let Some((template, operations)) = self.find(path) else {
            // Pages are for people, and the document is of the API.
            let page = !path.starts_with("/api/") && !kind.contains("json");
            ensure!(
                page || matches!(status, 400..=499),
                "{path} is in no OpenAPI document, and answers"
            );
            return Ok(());
        };
        let operation = &operations[method.to_lowercase()];
        if operation.is_null() {
            // HEAD is GET without a body; nobody need write that down.
            ensure!(
                method == "HEAD" || status >= 400,
                "{method} {template} is not in the document"
            );
            return Ok(());
        }
        let mut answer = &operation["responses"][status.to_string()];
        if answer.is_null() {
            bail!("{method} {template} answers {status}, which the document does not have");
        }
        let mut at =
            format!("/paths/{}/{}/responses/{status}", token(template), method.to_lowercase());
        if let Some(target) = answer["$ref"].as_str() {
            at = target.trim_start_matches('#').to_owned();
            answer = self.document.pointer(&at).context(at.clone())?;
        }
        if answer["content"].is_null() || method == "HEAD" {
            return Ok(());
        }
        let content = &answer["content"][kind];
        if content.is_null() {
            bail!(
                "{method} {template} answers {status} as {kind:?}, which the document does not have"
            );
        }
        // JSON lines are no JSON as a whole.
        if !kind.contains("json") || kind.contains("ndjson") || content["schema"].is_null() {
            return Ok(());
        }
        let value: Value = serde_json::from_str(body).context("the answer is not JSON")?;
        let at = format!("{at}/content/{}/schema", token(kind));
        let validator = self.validator(&at)?;
        let wrong: Vec<String> = validator
            .iter_errors(&value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        ensure!(
            wrong.is_empty(),
            "{method} {template} answers {status} with what the document does not have:\n{}\n{body}",
            wrong.join("\n")
        );
        Ok(())
    }

    fn find(&self, path: &str) -> Option<(&String, &Value)> {
        let parts: Vec<&str> = path.split('/').collect();
        let paths = self.document["paths"].as_object()?;
        // A word is meant rather than anything at all.
        paths
            .iter()
            .filter(|(template, _)| {
                let template: Vec<&str> = template.split('/').collect();
                template.len() == parts.len()
                    && template.iter().zip(&parts).all(|(a, b)| a.starts_with('{') || a == b)
            })
            .min_by_key(|(template, _)| template.matches('{').count())
    }

    fn validator(&self, at: &str) -> anyhow::Result<Arc<Validator>> {
        let mut known = self.validators.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(validator) = known.get(at) {
            return Ok(Arc::clone(validator));
        }
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$ref": format!("#{at}"),
            "components": self.document["components"],
            "paths": self.document["paths"],
        });
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(&schema)
            .map_err(|error| anyhow::anyhow!("{at}: {error}"))?;
        let validator = Arc::new(validator);
        known.insert(at.to_owned(), Arc::clone(&validator));
        Ok(validator)
    }
}

/// A part of a JSON pointer (RFC 6901), within a URI fragment.
fn token(text: &str) -> String {
    let mut out = String::new();
    for letter in text.replace('~', "~0").replace('/', "~1").chars() {
        match letter {
            '{' => out.push_str("%7B"),
            '}' => out.push_str("%7D"),
            ' ' => out.push_str("%20"),
            other => out.push(other),
        }
    }
    out
}

/// Readers are to accept fields that they do not know, so the document allows them; the tests do
/// not, so that a field that it lacks is found.
fn close(value: &mut Value) {
    match value {
        Value::Object(table) => {
            let is_shape = table.get("properties").is_some_and(Value::is_object);
            if is_shape && !table.contains_key("additionalProperties") {
                table.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            table.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contract() -> Contract {
        Contract::new(&json!({
            "paths": {
                "/a/{b}": {"get": {"responses": {"200": {"content": {"application/json": {
                    "schema": {"$ref": "#/components/schemas/A"}}}}}}},
                "/a/b": {"get": {"responses": {"204": {}}}},
            },
            "components": {"schemas": {"A": {
                "type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}}},
        }))
    }

    #[test]
    fn what_is_in_the_document_passes_and_nothing_else() {
        let contract = contract();
        let check = |path: &str, status: u16, kind: &str, body: &str| {
            contract.check("GET", path, status, kind, body).map_err(|error| error.to_string())
        };
        let json = "application/json";
        assert_eq!(check("/a/x?y=1", 200, json, "{\"n\":1}"), Ok(()));
        assert_eq!(check("/a/b", 204, "", ""), Ok(()));
        assert_eq!(check("/nowhere", 404, json, ""), Ok(()));
        for (path, status, kind, body) in [
            ("/a/x", 200, json, "{\"n\":\"1\"}"),
            ("/a/x", 200, json, "{\"n\":1,\"more\":2}"),
            ("/a/x", 200, json, "{}"),
            ("/a/x", 200, "text/plain", "x"),
            ("/a/x", 201, json, "{\"n\":1}"),
            ("/a/b", 200, json, "{\"n\":1}"),
            ("/api/nowhere", 200, "text/plain", ""),
            ("/nowhere", 200, json, "{}"),
        ] {
            assert!(check(path, status, kind, body).is_err(), "{path} {status} {kind} {body}");
        }
        assert!(contract.check("POST", "/a/x", 200, json, "{\"n\":1}").is_err());
    }
}
