use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::{Table, Value};

use super::{Form, Key, Mistake, Mistakes};

/// Takes settings out of a table one by one; what is left at the end nobody knows.
#[derive(Debug)]
pub struct Reader {
    table: Table,
    path: String,
    origin: String,
    origins: Vec<(&'static str, String)>,
    base: PathBuf,
    blank: bool,
    known: BTreeSet<&'static str>,
    mistakes: Vec<Mistake>,
}

impl Reader {
    /// Over a table that stands at `path` (empty: the top) in `origin`.
    pub fn new(table: Table, path: impl Into<String>, origin: impl Into<String>) -> Self {
        Self {
            table,
            path: path.into(),
            origin: origin.into(),
            origins: Vec::new(),
            base: PathBuf::new(),
            blank: false,
            known: BTreeSet::new(),
            mistakes: Vec::new(),
        }
    }

    /// Over a file.
    ///
    /// # Errors
    /// It cannot be read, or is not TOML.
    pub fn from_file(path: &Path) -> Result<Self, Mistakes> {
        let origin = path.display().to_string();
        let mistake = |message: String| {
            Mistakes(vec![Mistake { key: String::new(), message, origin: origin.clone() }])
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| mistake(format!("cannot be read: {error}")))?;
        let table = text
            .parse::<Table>()
            // TOML's message quotes the line it stumbled over, which can hold a secret.
            .map_err(|error| mistake(format!("is not TOML: {}", without_source(&text, &error))))?;
        let mut reader = Self::new(table, "", origin);
        reader.blank = text.trim().is_empty();
        reader.base = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(reader)
    }

    /// Whether there is a file, and nothing in it.
    pub fn is_blank(&self) -> bool {
        self.blank
    }

    /// Relative paths are taken from `folder`.
    pub fn set_base(&mut self, folder: &Path) {
        folder.clone_into(&mut self.base);
    }

    pub(super) fn set(&mut self, key: &Key, text: &str, origin: String) {
        let value = match key.form {
            Form::Text => Ok(Value::String(text.to_owned())),
            Form::List => Ok(Value::Array(
                text.split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty())
                    .map(|part| Value::String(part.to_owned()))
                    .collect(),
            )),
            Form::Toml => format!("value = {text}")
                .parse::<Table>()
                .ok()
                .and_then(|mut table| table.remove("value"))
                .ok_or("is not an inline TOML value, such as [{id = \"a\"}]"),
        };
        match value {
            Ok(value) => {
                self.table.insert(key.name.to_owned(), value);
                self.origins.push((key.name, origin));
            }
            Err(message) => self.mistakes.push(Mistake {
                key: key.name.to_owned(),
                message: message.to_owned(),
                origin,
            }),
        }
    }

    /// Records a mistake about `key`: for checks that need several settings.
    pub fn mistake(&mut self, key: &str, message: impl Into<String>) {
        let origin = self
            .origins
            .iter()
            .find(|(name, _)| *name == key)
            .map_or_else(|| self.origin.clone(), |(_, origin)| origin.clone());
        let key =
            if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        self.mistakes.push(Mistake { key, message: message.into(), origin });
    }

    /// Whether a mistake about `key` was told already, so that it need not be called missing.
    pub fn was_wrong(&self, key: &str) -> bool {
        let path =
            if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        self.mistakes.iter().any(|mistake| mistake.key.starts_with(&path))
    }

    /// Whether the key is set at all.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// A text, number or truth value, parsed by `parse`; `None` when it is not set or wrong.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.known.insert(key);
        let text = match self.table.remove(key)? {
            Value::String(text) => text,
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Boolean(truth) => truth.to_string(),
            other => {
                self.mistake(key, format!("is {}, expected one value", kind(&other)));
                return None;
            }
        };
        parse(&text).map_err(|message| self.mistake(key, message)).ok()
    }

    /// Like [`Self::parsed`], by the type's own [`FromStr`].
    pub fn value<T>(&mut self, key: &'static str) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.parsed(key, |text| {
            text.parse().map_err(|error: T::Err| {
                let error = error.to_string();
                if error.contains(&format!("{text:?}")) {
                    error
                } else {
                    format!("{text:?}: {error}")
                }
            })
        })
    }

    /// A duration within `range`, in milliseconds; `default` when it is not set or wrong.
    pub fn duration(
        &mut self,
        key: &'static str,
        default: std::time::Duration,
        range: std::ops::RangeInclusive<std::time::Duration>,
    ) -> std::time::Duration {
        self.parsed(key, |text| {
            let value = crate::quantity::duration(text)?;
            if range.contains(&value) {
                return Ok(value);
            }
            Err(format!("{text:?} is out of range: {:?} to {:?}", range.start(), range.end()))
        })
        .unwrap_or(default)
    }

    /// `true` or `false`.
    pub fn truth(&mut self, key: &'static str, default: bool) -> bool {
        self.parsed(key, |text| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!("{text:?} is neither true nor false")),
        })
        .unwrap_or(default)
    }

    /// A path; one that is relative in the file is taken from the file's folder.
    pub fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let from_file = !self.origins.iter().any(|(name, _)| *name == key);
        let base = if from_file { self.base.clone() } else { PathBuf::new() };
        self.parsed(key, |text| {
            if text.is_empty() {
                return Err("is empty, expected a path".to_owned());
            }
            Ok(base.join(text))
        })
    }

    /// Where a file is that a text of this table names: for tables whose keys are free.
    pub fn file(&self, text: &str) -> PathBuf {
        self.base.join(text)
    }

    /// A list, each item parsed by `parse`; `None` when it is not set.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        self.known.insert(key);
        let items = match self.table.remove(key)? {
            Value::Array(items) => items,
            text @ Value::String(_) => vec![text],
            other => {
                self.mistake(key, format!("is {}, expected a list of texts", kind(&other)));
                return None;
            }
        };
        let mut parsed = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            match item {
                Value::String(text) => match parse(&text) {
                    Ok(value) => parsed.push(value),
                    Err(message) => self.mistake(&format!("{key}[{index}]"), message),
                },
                other => {
                    let message = format!("is {}, expected a text", kind(&other));
                    self.mistake(&format!("{key}[{index}]"), message);
                }
            }
        }
        Some(parsed)
    }

    /// Paths, each checked by `check`; those that are relative in the file are taken from the
    /// file's folder.
    pub fn paths(
        &mut self,
        key: &'static str,
        check: impl Fn(&Path) -> Result<(), String>,
    ) -> Option<Vec<PathBuf>> {
        let from_file = !self.origins.iter().any(|(name, _)| *name == key);
        let base = if from_file { self.base.clone() } else { PathBuf::new() };
        self.list(key, |text| match text {
            "" => Err("is empty, expected a path".to_owned()),
            text => {
                let path = base.join(text);
                check(&path).map(|()| path)
            }
        })
    }

    /// A table, read by `read`; `None` when it is not set or `read` gives none.
    pub fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        self.known.insert(key);
        match self.table.remove(key)? {
            Value::Table(table) => self.nested(key, key.to_owned(), table, read),
            other => {
                self.mistake(key, format!("is {}, expected a table [{key}]", kind(&other)));
                None
            }
        }
    }

    /// An array of tables, each read by `read`; those for which it gives none are left out.
    pub fn tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Self) -> Option<T>,
    ) -> Vec<T> {
        self.known.insert(key);
        let items = match self.table.remove(key) {
            None => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(other) => {
                self.mistake(key, format!("is {}, expected tables [[{key}]]", kind(&other)));
                return Vec::new();
            }
        };
        let mut all = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let name = format!("{key}[{index}]");
            match item {
                Value::Table(table) => all.extend(self.nested(key, name, table, &mut read)),
                other => self.mistake(&name, format!("is {}, expected a table", kind(&other))),
            }
        }
        all
    }

    fn nested<T>(
        &mut self,
        key: &str,
        name: String,
        table: Table,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        let path = if self.path.is_empty() { name } else { format!("{}.{name}", self.path) };
        let from_file = self.origins.iter().find(|(known, _)| *known == key);
        let origin = from_file.map_or_else(|| self.origin.clone(), |(_, origin)| origin.clone());
        let mut inner = Self::new(table, path, origin);
        inner.base = self.base.clone();
        let value = read(&mut inner);
        inner.tell_unknown();
        self.mistakes.append(&mut inner.mistakes);
        value
    }

    /// The rest of the table as texts: for tables whose keys are free (`[slots.env]`).
    pub fn rest(&mut self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for (key, value) in std::mem::take(&mut self.table) {
            match value {
                Value::String(text) => all.push((key, text)),
                Value::Integer(number) => all.push((key, number.to_string())),
                Value::Boolean(truth) => all.push((key, truth.to_string())),
                other => self.mistake(&key, format!("is {}, expected a text", kind(&other))),
            }
        }
        all
    }

    fn tell_unknown(&mut self) {
        for key in std::mem::take(&mut self.table).keys() {
            let known: Vec<&str> = self.known.iter().copied().collect();
            let shown: String = key.chars().take(64).collect();
            self.mistake(&shown, format!("unknown key; known are {}", known.join(", ")));
        }
    }

    /// `value`, unless anything at all was wrong.
    ///
    /// # Errors
    /// All that was wrong, in the order of reading, unknown keys last.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<T, Mistakes> {
        self.tell_unknown();
        match value {
            Some(value) if self.mistakes.is_empty() => Ok(value),
            _ => Err(Mistakes(self.mistakes)),
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

fn without_source(text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: {}", error.message())
}
