//! YAML of other programs' files, taken into the form that [`crate::config::Reader`] reads, so
//! that mistakes in it are told like all others.

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, ScanError, YamlData};
use saphyr_parser::{Event, Parser};
use toml::{Table, Value};

/// Deeper than any file that we read.
const DEEPEST: usize = 32;

/// The first document of a text. Keys without a value are left out.
///
/// # Errors
/// It is not YAML, or holds what TOML cannot. The text is not quoted: it may hold a secret.
pub fn value(text: &str) -> Result<Option<Value>, String> {
    first(text, &|scalar, _| match scalar {
        Scalar::Null => None,
        Scalar::Boolean(truth) => Some(Value::Boolean(*truth)),
        Scalar::Integer(number) => Some(Value::Integer(*number)),
        Scalar::FloatingPoint(number) => Some(Value::Float(number.into_inner())),
        Scalar::String(text) => Some(Value::String(text.to_string())),
    })
}

/// The same, where nothing but texts is meant: `1.10` is as it was written, and no value is an empty
/// text.
///
/// # Errors
/// Those of [`value`].
pub fn texts(text: &str) -> Result<Option<Value>, String> {
    let characters: Vec<char> = text.chars().collect();
    first(text, &|scalar, node| {
        let (from, to) = (node.span.start.index(), node.span.end.index());
        let written = characters.get(from..to).map(|it| it.iter().collect::<String>());
        let written = written.filter(|it| !it.starts_with(['*', '&', '!']));
        Some(Value::String(match scalar {
            Scalar::String(text) => text.to_string(),
            Scalar::Null => String::new(),
            Scalar::Boolean(truth) => written.unwrap_or_else(|| truth.to_string()),
            Scalar::Integer(number) => written.unwrap_or_else(|| number.to_string()),
            Scalar::FloatingPoint(number) => written.unwrap_or_else(|| number.to_string()),
        }))
    })
}

type Of<'a> = &'a dyn Fn(&Scalar<'_>, &MarkedYaml<'_>) -> Option<Value>;

fn first(text: &str, of: Of<'_>) -> Result<Option<Value>, String> {
    if is_too_deep(text) {
        return Err(format!("is nested more than {DEEPEST} deep"));
    }
    let documents = MarkedYaml::load_from_str(text).map_err(|error: ScanError| {
        let at = error.marker();
        format!("is not YAML: line {}, column {}: {}", at.line(), at.col() + 1, error.info())
    })?;
    documents.first().map_or(Ok(None), |document| converted(document, of, DEEPEST))
}

/// Whether a text is nested deeper than anything may be: whoever makes a tree of it calls itself as often,
/// until there is no stack left. What is wrong with it otherwise is told by who reads it.
fn is_too_deep(text: &str) -> bool {
    let mut depth = 0_usize;
    Parser::new_from_str(text).map_while(Result::ok).any(|(event, _)| {
        match event {
            Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
            Event::SequenceEnd | Event::MappingEnd => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > DEEPEST
    })
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

/// The same, where keys of the mapping `of` that have no value are not left out: they are empty texts.
///
/// # Errors
/// Those of [`table`].
pub fn table_with_empty(text: &str, of: &str) -> Result<Table, String> {
    let mut table = table(text)?;
    let written = texts(text)?;
    let written = written.as_ref().and_then(|written| written.get(of)?.as_table());
    let empty = written.into_iter().flatten().filter(|(_, value)| value.as_str() == Some(""));
    for (key, value) in empty {
        let of = table.entry(of).or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(of) = of {
            of.entry(key).or_insert_with(|| value.clone());
        }
    }
    Ok(table)
}

fn converted(yaml: &MarkedYaml<'_>, of: Of<'_>, deeper: usize) -> Result<Option<Value>, String> {
    if deeper == 0 {
        return Err(format!("is nested more than {DEEPEST} deep"));
    }
    Ok(match &yaml.data {
        YamlData::Value(scalar) => of(scalar, yaml),
        YamlData::Sequence(items) => {
            let items = items.iter().filter_map(|it| converted(it, of, deeper - 1).transpose());
            Some(Value::Array(items.collect::<Result<_, _>>()?))
        }
        YamlData::Mapping(pairs) => {
            let mut table = Table::new();
            for (key, value) in pairs {
                let key = match &key.data {
                    YamlData::Value(Scalar::String(text)) => text.to_string(),
                    YamlData::Value(Scalar::Integer(number)) => number.to_string(),
                    YamlData::Value(Scalar::Boolean(truth)) => truth.to_string(),
                    _ => return Err("has a key that is not a text".to_owned()),
                };
                if let Some(value) = converted(value, of, deeper - 1)? {
                    table.insert(key, value);
                }
            }
            Some(Value::Table(table))
        }
        _ => return Err("has a tag or alias, which is not understood".to_owned()),
    })
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
    fn texts_are_as_they_were_written() {
        let text = "a: 1.10\nb: [0123, 0x10, True, ~, 1e3]\nc: 'x: 1'\nd:\ne: ü # 5\nf: 1_0\n\
                    g: 99999999999999999999\nh: &n 07\ni: *n\n";
        let Value::Table(found) = texts(text).unwrap().unwrap() else { panic!("no mapping") };
        let expected = "a = '1.10'\nb = ['0123', '0x10', 'True', '', '1e3']\nc = 'x: 1'\nd = ''\n\
                        e = 'ü'\nf = '1_0'\ng = '99999999999999999999'\nh = '7'\ni = '7'";
        assert_eq!(found, expected.parse::<Table>().unwrap());
    }

    #[test]
    fn what_is_none_is_told_without_its_text() {
        for (wrong, word) in [
            ("canary: [", "line"),
            ("- canary", "mapping"),
            ("? [a]\n: canary", "key"),
            (&format!("a: {}canary{}", "[".repeat(50), "]".repeat(50)), "deep"),
            (&format!("{}canary", "- ".repeat(200_000)), "deep"),
            (&format!("{}canary", "? ".repeat(200_000)), "deep"),
        ] {
            let message = table(wrong).unwrap_err();
            assert!(message.contains(word) && !message.contains("canary"), "{message}");
        }
    }
}
