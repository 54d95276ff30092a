//! Reads a page as a strict browser would: every fault in it is a failed test.

use std::collections::BTreeMap;

use html5gum::{Token, Tokenizer};

/// Elements that have no end.
const VOID: [&str; 6] = ["meta", "link", "input", "br", "img", "hr"];

/// Elements that begin on a line of their own, for who reads the text.
const BLOCKS: [&str; 17] = [
    "p",
    "li",
    "tr",
    "h1",
    "h2",
    "dt",
    "dd",
    "pre",
    "figcaption",
    "summary",
    "option",
    "form",
    "section",
    "table",
    "title",
    "header",
    "footer",
];

/// Elements that stand apart from what is before them.
const CELLS: [&str; 5] = ["td", "th", "a", "label", "text"];

/// One start of an element.
pub(crate) struct Element {
    pub(crate) name: String,
    pub(crate) attributes: BTreeMap<String, String>,
    /// Names of the elements around it, outermost first.
    pub(crate) around: Vec<String>,
}

impl Element {
    pub(crate) fn get(&self, attribute: &str) -> Option<&str> {
        self.attributes.get(attribute).map(String::as_str)
    }
}

/// A page, read.
pub(crate) struct Html {
    pub(crate) elements: Vec<Element>,
    /// What a person reads: blocks on lines of their own, spaces run together.
    pub(crate) text: String,
}

impl Html {
    /// Reads `html`, and fails on whatever is not well formed, not allowed by the policy, or
    /// no help to who can't see it.
    pub(crate) fn read(html: &str) -> Self {
        let mut open: Vec<String> = Vec::new();
        let mut elements = Vec::new();
        let mut text = String::new();
        for token in Tokenizer::new(html) {
            match token.unwrap() {
                Token::StartTag(tag) => {
                    let name = string(&tag.name);
                    if BLOCKS.contains(&name.as_str()) {
                        text.push('\n');
                    } else if CELLS.contains(&name.as_str()) {
                        text.push(' ');
                    }
                    let attributes =
                        tag.attributes.iter().map(|(name, value)| (string(name), string(value)));
                    elements.push(Element {
                        name: name.clone(),
                        attributes: attributes.collect(),
                        around: open.clone(),
                    });
                    if !tag.self_closing && !VOID.contains(&name.as_str()) {
                        open.push(name);
                    }
                }
                Token::EndTag(tag) => {
                    assert_eq!(open.pop().as_deref(), Some(&*string(&tag.name)), "{open:?}");
                }
                Token::String(part) => {
                    let part = string(&part);
                    let kept = open.iter().any(|name| name == "pre");
                    text.push_str(&if kept { part } else { part.replace('\n', " ") });
                }
                Token::Error(error) => panic!("{error:?}"),
                Token::Comment(_) | Token::Doctype(_) => {}
            }
        }
        assert!(open.is_empty(), "never closed: {open:?}");
        let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        let text = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
        let html = Self { elements, text };
        html.obeys_the_policy();
        html.is_accessible();
        html
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.elements.iter().filter(move |element| element.name == name)
    }

    /// Fails unless each of `texts` is read on the page, in this order.
    pub(crate) fn says(&self, texts: &[&str]) {
        let mut rest = self.text.as_str();
        for text in texts {
            let Some(at) = rest.find(text) else {
                panic!("{text:?} is not read after the one before it in:\n{}", self.text)
            };
            rest = &rest[at + text.len()..];
        }
    }

    pub(crate) fn does_not_say(&self, text: &str) {
        assert!(!self.text.contains(text), "{text:?} is read in:\n{}", self.text);
    }

    fn obeys_the_policy(&self) {
        for element in &self.elements {
            let name = element.name.as_str();
            assert!(!matches!(name, "style" | "iframe" | "object" | "base" | "img"), "{name}");
            for (attribute, value) in &element.attributes {
                assert!(attribute != "style" && !attribute.starts_with("on"), "{name} {attribute}");
                if matches!(attribute.as_str(), "href" | "src" | "action") {
                    let own = value.starts_with('#')
                        || (value.starts_with('/') && !value.starts_with("//"));
                    assert!(own, "{name} {attribute}={value:?}");
                }
            }
        }
        assert!(self.all("script").all(|script| script.get("src").is_some()));
    }

    fn is_accessible(&self) {
        let ids: Vec<&str> = self.elements.iter().filter_map(|one| one.get("id")).collect();
        for (index, id) in ids.iter().enumerate() {
            assert!(!ids[..index].contains(id), "two elements have the id {id:?}");
        }
        for element in &self.elements {
            for reference in ["aria-labelledby", "aria-describedby", "list"] {
                if let Some(id) = element.get(reference) {
                    assert!(ids.contains(&id), "{reference}={id:?} points nowhere");
                }
            }
            match element.name.as_str() {
                "html" => assert_eq!(element.get("lang"), Some("en")),
                "th" => assert!(element.get("scope").is_some(), "a th without scope"),
                "time" => assert!(element.get("datetime").is_some_and(|time| time.ends_with('Z'))),
                "nav" | "meter" => assert!(element.get("aria-label").is_some()),
                "section" => assert!(element.get("aria-labelledby").is_some()),
                "svg" => {
                    assert!(
                        element.get("aria-label").or(element.get("aria-hidden")).is_some(),
                        "a drawing without words"
                    );
                }
                "select" => assert_eq!(element.around.last().unwrap(), "label"),
                "input" if element.get("type") != Some("hidden") => {
                    assert_eq!(element.around.last().unwrap(), "label");
                }
                _ => {}
            }
        }
        assert_eq!(self.all("h1").count(), 1, "one h1");
        assert_eq!(self.all("main").count(), 1, "one main");
        let titles = self.all("title").filter(|title| title.around.last().unwrap() == "head");
        assert_eq!(titles.count(), 1, "one title");
        assert_eq!(self.all("table").count(), self.all("caption").count(), "captions");
        let skip = self.all("a").next().unwrap();
        assert_eq!(skip.get("href"), Some("#main"), "the first link skips the navigation");
    }
}

fn string(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
