use std::collections::BTreeMap;

use serde_json::Value;

/// The body of a webhook as its receiver wants it: JSON in which `{{field}}` stands for a whole
/// value, quotes included. So nothing that an alert says can break out of its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(&'static str),
}

/// What can stand in a template.
pub(super) const FIELDS: [&str; 8] =
    ["alerts", "firing", "receiver", "resolved", "severity", "status", "text", "title"];

impl Template {
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((name, after)) = after.split_once("}}") else {
                return Err("has '{{' without '}}'".to_owned());
            };
            let name = name.trim();
            let Some(field) = FIELDS.into_iter().find(|field| *field == name) else {
                let shown: String = name.chars().take(40).collect();
                return Err(format!("{shown:?} is not a field: {}", FIELDS.join(", ")));
            };
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Field(field));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        let template = Self(parts);
        let sample = FIELDS.into_iter().map(|field| (field, Value::from(field))).collect();
        match serde_json::from_str::<Value>(&template.fill(&sample)) {
            Ok(_) => Ok(template),
            Err(error) => Err(format!(
                "is not JSON ({error}); {{{{text}}}} stands for a whole value, without quotes"
            )),
        }
    }

    /// The body.
    pub fn fill(&self, values: &BTreeMap<&'static str, Value>) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Field(field) => values.get(field).unwrap_or(&Value::Null).to_string(),
        };
        self.0.iter().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("{\"a\": {{text}", "without"),
            ("{\"a\": {{tekst}}}", "\"tekst\" is not a field: alerts, firing"),
            ("{\"a\": \"{{text}}\"}", "is not JSON"),
            ("", "is not JSON"),
        ] {
            let error = Template::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_said_stays_within_its_place(said: String) {
            let template = Template::parse("{\"m\": {{ text }}, \"n\": [{{firing}}]}").unwrap();
            let values = BTreeMap::from([("text", Value::from(said.clone())), ("firing", 3.into())]);
            let filled: Value = serde_json::from_str(&template.fill(&values)).unwrap();
            prop_assert_eq!(&filled["m"], &Value::from(said));
            prop_assert_eq!(&filled["n"][0], &Value::from(3));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = Template::parse(&text);
        }
    }
}
