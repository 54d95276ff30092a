//! YAML of other programs' files, taken into the form that [`crate::config::Reader`] reads, so
//! that mistakes in it are told like all others.

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use toml::{Table, Value};

/// Deeper than any file that we read.
const DEEPEST: usize = 32;

/// The first document of a text. Keys without a value are left out.
///
/// # Errors
/// It is not YAML, or holds what TOML cannot. The text is not quoted: it may hold a secret.
pub fn value(text: &str) -> Result<Option<Value>, String> {
    let documents = Yaml::load_from_str(text).map_err(|error| {
        let at = error.marker();
        format!("is not YAML: line {}, column {}: {}", at.line(), at.col() + 1, error.info())
    })?;
    documents.first().map_or(Ok(None), |document| converted(document, DEEPEST))
}

/// The same, where a mapping is expected. An empty text is an empty one.
///
/// # Errors
/// Those of [`value`], and anything but a mapping.
pub fn table(text: &str) -> Result<Table, String> {
    match value(text)? {
        None => Ok(Table::new()),
        Some(Value::Table(table)) => Ok(table),
        Some(_) => Err("is YAML, but no mapping of keys to values".to_owned()),
    }
}

fn converted(yaml: &Yaml<'_>, deeper: usize) -> Result<Option<Value>, String> {
    if deeper == 0 {
        return Err(format!("is nested more than {DEEPEST} deep"));
    }
    Ok(Some(match yaml {
        Yaml::Value(Scalar::Null) => return Ok(None),
        Yaml::Value(Scalar::Boolean(truth)) => Value::Boolean(*truth),
        Yaml::Value(Scalar::Integer(number)) => Value::Integer(*number),
        Yaml::Value(Scalar::FloatingPoint(number)) => Value::Float(number.into_inner()),
        Yaml::Value(Scalar::String(text)) => Value::String(text.to_string()),
        Yaml::Sequence(items) => {
            let items = items.iter().filter_map(|item| converted(item, deeper - 1).transpose());
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Yaml::Mapping(pairs) => {
            let mut table = Table::new();
            for (key, value) in pairs {
                let key = match key {
                    Yaml::Value(Scalar::String(text)) => text.to_string(),
                    Yaml::Value(Scalar::Integer(number)) => number.to_string(),
                    Yaml::Value(Scalar::Boolean(truth)) => truth.to_string(),
                    _ => return Err("has a key that is not a text".to_owned()),
                };
                if let Some(value) = converted(value, deeper - 1)? {
                    table.insert(key, value);
                }
            }
            Value::Table(table)
        }
        _ => return Err("has a tag or alias, which is not understood".to_owned()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_yaml_says_toml_says() {
        let text = "a: 1\nb: [x, 'y', 2.5, true]\nc:\n  d: null\n  3: e\n# done\n";
        let expected = "a = 1\nb = ['x', 'y', 2.5, true]\n[c]\n3 = 'e'";
        assert_eq!(table(text).unwrap(), expected.parse::<Table>().unwrap());
        assert_eq!(table("").unwrap(), Table::new());
    }

    #[test]
    fn what_is_none_is_told_without_its_text() {
        for (wrong, word) in [
            ("canary: [", "line"),
            ("- canary", "mapping"),
            ("? [a]\n: canary", "key"),
            (&format!("a: {}canary{}", "[".repeat(50), "]".repeat(50)), "deep"),
        ] {
            let message = table(wrong).unwrap_err();
            assert!(message.contains(word) && !message.contains("canary"), "{message}");
        }
    }
}
