//! The OpenAPI documents are whole: every route stands in one, and nothing else does. That answers
//! are as they say is shown by all other tests, whose clients hold each answer against them.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use e2e::{FakePm2, contract, pm2_process, scene};
use serde_json::Value;

type Routes = BTreeSet<(String, String)>;

/// `.route("/path", get(a).post(b))` of a source text, under a prefix.
fn routes(source: &str, prefix: &str) -> Routes {
    let mut found = Routes::new();
    // What tests of the source do is no route.
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    for part in source.split(".route(").skip(1) {
        let mut quoted = part.splitn(3, '"');
        let (Some(_), Some(path), Some(rest)) = (quoted.next(), quoted.next(), quoted.next())
        else {
            continue;
        };
        // To the end of the call.
        let mut depth = 1;
        let end = rest.find(|letter| {
            depth += match letter {
                '(' => 1,
                ')' => -1,
                _ => 0,
            };
            depth == 0
        });
        let handlers = &rest[..end.unwrap_or(rest.len())];
        for method in ["get", "put", "post", "patch", "delete"] {
            let named = |before: char| handlers.contains(&format!("{before}{method}("));
            if [' ', '.', '\n', ':'].into_iter().any(named) {
                found.insert((method.to_uppercase(), format!("{prefix}{path}")));
            }
        }
    }
    found
}

fn compare(program: &str, routes: Routes) -> Result<()> {
    assert!(routes.len() > 10, "routes are not found any more: {routes:?}");
    let contract = contract::of(program).context("no document")?;
    let documented: Routes = contract.operations().into_iter().collect();
    let missing: Vec<_> = routes.difference(&documented).collect();
    assert!(missing.is_empty(), "not in the document of {program}: {missing:?}");
    let invented: Vec<_> = documented.difference(&routes).collect();
    assert!(invented.is_empty(), "only in the document of {program}: {invented:?}");
    Ok(())
}

#[test]
fn every_route_of_the_exporter_is_in_its_document() -> Result<()> {
    compare("pm2-exporter", routes(include_str!("../../../exporter/src/http/mod.rs"), ""))
}

#[test]
fn every_route_of_the_poller_is_in_its_document() -> Result<()> {
    let mut all = routes(include_str!("../../../poller/src/http/api/mod.rs"), "/api");
    let outer = routes(include_str!("../../../poller/src/http/mod.rs"), "");
    all.extend(outer.into_iter().filter(|(_, path)| !path.starts_with("/api")));
    compare("pm2-poller", all)
}

/// Every `$ref`, wherever it is.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                match value.as_str() {
                    Some(at) if key == "$ref" => found.push(at.to_owned()),
                    _ => references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// What a document must have to be of use to people and to programs that read it.
fn is_whole(document: &Value) {
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut all = Vec::new();
    references(document, &mut all);
    for at in &all {
        assert!(document.pointer(at.trim_start_matches('#')).is_some(), "{at} leads nowhere");
    }
    let mut ids = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in operations.as_object().into_iter().flatten() {
            if method == "parameters" {
                continue;
            }
            let id = operation["operationId"].as_str().unwrap_or_default();
            assert!(!id.is_empty() && ids.insert(id.to_owned()), "{method} {path}: {id:?}");
            assert!(operation["summary"].as_str().is_some_and(|it| it.ends_with('.')), "{path}");
            let names: Vec<&str> = [&operations["parameters"], &operation["parameters"]]
                .into_iter()
                .filter_map(Value::as_array)
                .flatten()
                .filter_map(|parameter| match parameter["$ref"].as_str() {
                    Some(at) => document.pointer(at.trim_start_matches('#'))?["name"].as_str(),
                    None => parameter["name"].as_str(),
                })
                .collect();
            for part in path.split('/').filter_map(|part| part.strip_prefix('{')) {
                let name = part.trim_end_matches('}');
                assert!(names.contains(&name), "{method} {path} does not say what {name} is");
            }
        }
    }
}

#[tokio::test]
async fn the_exporter_serves_its_document_and_a_page_of_it_to_everybody() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(1))?;
    let exporter = scene::guarded_exporter(fake.home(), "").await?;
    let client = exporter.program.client();
    is_whole(&client.json("/api/openapi.json").await?);
    let page = client.get("/api/docs").await?.ok()?;
    for part in ["GET /api/journal", "known_state", "CommandRecord", "unless set 1000"] {
        assert!(page.contains(part), "{part} is not on the page");
    }
    Ok(())
}

#[tokio::test]
async fn the_poller_serves_its_document_and_a_page_of_it_to_everybody() -> Result<()> {
    let poller = scene::poller(&[], "").await?;
    let client = poller.program.client();
    is_whole(&client.json("/api/openapi.json").await?);
    let page = client.get("/api/docs").await?.ok()?;
    for part in ["GET /api/events", "Idempotency-Key", "StoredCommand"] {
        assert!(page.contains(part), "{part} is not on the page");
    }
    Ok(())
}
