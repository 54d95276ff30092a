//! An OpenAPI document as a page: by tag, each operation with what it takes and gives.

use std::fmt::Write;

use serde_json::Value;

use crate::html::escape;

const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];

pub(super) fn write(document: &Value) -> String {
    let text = |pointer: &str| {
        escape(document.pointer(pointer).and_then(Value::as_str).unwrap_or_default())
    };
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}: HTTP</title><style>\
         :root{{color-scheme:light dark;font-family:system-ui,sans-serif;line-height:1.5}}\
         body{{margin:2rem auto;max-width:60rem;padding:0 1rem;overflow-wrap:anywhere}}\
         summary{{cursor:pointer;padding:.3rem 0}}details{{border-bottom:1px solid #8884}}\
         code{{font-family:ui-monospace,monospace}}table{{border-collapse:collapse}}\
         th,td{{text-align:left;vertical-align:top;padding:.2rem .6rem .2rem 0}}\
         pre{{overflow-x:auto}}</style></head><body><main><h1>{title} {version}</h1>\
         <p>{summary} <a href=\"/api/openapi.json\">The document as JSON</a></p><p>{words}</p>",
        title = text("/info/title"),
        version = text("/info/version"),
        summary = text("/info/summary"),
        words = text("/info/description"),
    );
    let tags = document["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
    for tag in tags.iter().filter_map(|tag| tag["name"].as_str()) {
        let _ = write!(page, "<section><h2>{}</h2>", escape(tag));
        for (path, operations) in document["paths"].as_object().into_iter().flatten() {
            for method in METHODS {
                let operation = &operations[method];
                if operation["tags"][0] == tag {
                    write_operation(&mut page, document, path, method, operations, operation);
                }
            }
        }
        page.push_str("</section>");
    }
    page.push_str("<section><h2>Shapes</h2>");
    for (name, schema) in
        document.pointer("/components/schemas").and_then(Value::as_object).into_iter().flatten()
    {
        let json = serde_json::to_string_pretty(schema).unwrap_or_default();
        let _ = write!(
            page,
            "<details id=\"{name}\"><summary><code>{name}</code> {words}</summary><pre tabindex=\"0\">{json}</pre></details>",
            name = escape(name),
            words = escape(schema["description"].as_str().unwrap_or_default()),
            json = escape(&json),
        );
    }
    page.push_str("</section></main></body></html>\n");
    page
}

fn write_operation(
    page: &mut String,
    document: &Value,
    path: &str,
    method: &str,
    operations: &Value,
    operation: &Value,
) {
    let word = |value: &Value| escape(value.as_str().unwrap_or_default());
    let _ = write!(
        page,
        "<details><summary><code>{} {}</code> {}</summary>",
        method.to_uppercase(),
        escape(path),
        word(&operation["summary"]),
    );
    if let Some(words) = operation["description"].as_str() {
        let _ = write!(page, "<p>{}</p>", escape(words));
    }
    let parameters: Vec<&Value> = [&operations["parameters"], &operation["parameters"]]
        .into_iter()
        .filter_map(Value::as_array)
        .flatten()
        .map(|parameter| meant(document, parameter))
        .collect();
    if !parameters.is_empty() {
        page.push_str("<table><thead><tr><th scope=\"col\">Parameter</th><th scope=\"col\">In</th><th scope=\"col\">What</th></tr></thead><tbody>");
        for parameter in parameters {
            let _ = write!(
                page,
                "<tr><td><code>{}</code></td><td>{}</td><td>{} {}</td></tr>",
                word(&parameter["name"]),
                word(&parameter["in"]),
                word(&parameter["description"]),
                allowed(document, &parameter["schema"]),
            );
        }
        page.push_str("</tbody></table>");
    }
    let body = &operation["requestBody"]["content"];
    for (kind, content) in body.as_object().into_iter().flatten() {
        let _ = write!(
            page,
            "<p>Body: <code>{}</code> {}</p>",
            escape(kind),
            shape(&content["schema"])
        );
    }
    page.push_str("<table><thead><tr><th scope=\"col\">Status</th><th scope=\"col\">What</th></tr></thead><tbody>");
    for (status, answer) in operation["responses"].as_object().into_iter().flatten() {
        let answer = meant(document, answer);
        let shapes: Vec<String> = answer["content"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(kind, content)| {
                format!("<code>{}</code> {}", escape(kind), shape(&content["schema"]))
            })
            .collect();
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{} {}</td></tr>",
            escape(status),
            word(&answer["description"]),
            shapes.join(", "),
        );
    }
    page.push_str("</tbody></table></details>");
}

/// What a reference means.
fn meant<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(at) => document.pointer(at.trim_start_matches('#')).unwrap_or(value),
        None => value,
    }
}

/// A link to a shape that has a name.
fn shape(schema: &Value) -> String {
    let name = schema["$ref"].as_str().and_then(|at| at.rsplit('/').next());
    match name {
        Some(name) => format!("<a href=\"#{0}\">{0}</a>", escape(name)),
        None => ["oneOf", "anyOf"]
            .iter()
            .filter_map(|key| schema[key].as_array())
            .flatten()
            .map(shape)
            .filter(|text| !text.is_empty())
            .collect::<Vec<_>>()
            .join(" or "),
    }
}

/// What a parameter may be, in words.
fn allowed(document: &Value, schema: &Value) -> String {
    let schema = meant(document, schema);
    let mut words = Vec::new();
    if let Some(all) = schema["enum"].as_array() {
        let all: Vec<_> = all.iter().filter_map(Value::as_str).map(escape).collect();
        words.push(format!("one of {}", all.join(", ")));
    }
    for (key, word) in [("minimum", "from"), ("maximum", "to"), ("default", "unless set")] {
        if !schema[key].is_null() {
            words.push(format!("{word} {}", escape(&schema[key].to_string())));
        }
    }
    if words.is_empty() { String::new() } else { format!("({})", words.join(", ")) }
}
