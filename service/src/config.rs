//! Configuration in layers: defaults, under a TOML file, under environment variables, under
//! flags. Everything that is wrong is told at once, each mistake with its key and where it
//! stands, before anything is bound or opened.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Arg, ArgMatches};
use toml::{Table, Value};

/// How a setting is written as a flag or an environment variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One text or number.
    Text,
    /// Several texts, separated by commas.
    List,
    /// A table or an array of tables, as an inline TOML value.
    Toml,
}

/// One setting: its key in the file, and so its flag (`poll-interval`) and its variable
/// (`PM2_POLLER_POLL_INTERVAL`).
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Key in the file.
    pub name: &'static str,
    /// How it is written outside the file.
    pub form: Form,
    /// Stands for the value in `--help`.
    pub value: &'static str,
    /// One line of help, with the default.
    pub help: &'static str,
}

/// All settings of a program.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Prefix of the environment variables: `PM2_POLLER`.
    pub env_prefix: &'static str,
    /// Every top-level key.
    pub keys: &'static [Key],
}

impl Settings {
    /// The flags: `--config` and one a setting.
    pub fn args(&self) -> Vec<Arg> {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help(format!("Configuration file, TOML [env: {}_CONFIG]", self.env_prefix));
        std::iter::once(config)
            .chain(self.keys.iter().map(|key| {
                Arg::new(key.name)
                    .long(key.name.replace('_', "-"))
                    .value_name(key.value)
                    .help(format!("{} [env: {}]", key.help, self.variable(key.name)))
            }))
            .collect()
    }

    fn variable(&self, key: &str) -> String {
        format!("{}_{}", self.env_prefix, key.to_ascii_uppercase())
    }

    /// Reads all layers. `env` gives environment variables (a test passes a map).
    ///
    /// # Errors
    /// The file cannot be read or is not TOML. Everything else is told by [`Reader::finish`].
    pub fn read(
        &self,
        matches: &ArgMatches,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Reader, Mistakes> {
        let file = matches
            .get_one::<PathBuf>("config")
            .cloned()
            .or_else(|| env(&format!("{}_CONFIG", self.env_prefix)).map(PathBuf::from));
        let mut reader = match &file {
            Some(path) => Reader::from_file(path)?,
            None => Reader::new(Table::new(), "", ""),
        };
        for key in self.keys {
            let variable = self.variable(key.name);
            let flag = format!("--{}", key.name.replace('_', "-"));
            let given = matches
                .get_one::<String>(key.name)
                .map(|text| (text.clone(), flag))
                .or_else(|| env(&variable).map(|text| (text, variable)));
            if let Some((text, origin)) = given {
                reader.set(key, &text, origin);
            }
        }
        Ok(reader)
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where: `servers[1].url`; empty for the file as a whole.
    pub key: String,
    /// What: the value and what is allowed.
    pub message: String,
    /// File, variable or flag that says so.
    pub origin: String,
}

/// Everything that is wrong, one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Mistake { key, message, origin }) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match (key.is_empty(), origin.is_empty()) {
                (true, true) => write!(f, "{message}")?,
                (true, false) => write!(f, "{origin}: {message}")?,
                (false, true) => write!(f, "{key}: {message}")?,
                (false, false) => write!(f, "{key} ({origin}): {message}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// Takes settings out of a table one by one; what is left at the end nobody knows.
#[derive(Debug)]
pub struct Reader {
    table: Table,
    path: String,
    origin: String,
    origins: Vec<(&'static str, String)>,
    base: PathBuf,
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
        reader.base = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(reader)
    }

    fn set(&mut self, key: &Key, text: &str, origin: String) {
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
        T::Err: fmt::Display,
    {
        self.parsed(key, |text| {
            text.parse().map_err(|error: T::Err| {
                let error = error.to_string();
                if error.contains(text) { error } else { format!("{text:?}: {error}") }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SETTINGS: Settings = Settings {
        env_prefix: "PM2_TEST",
        keys: &[
            Key { name: "listen", form: Form::Text, value: "ADDRESS", help: "Where" },
            Key { name: "poll_interval", form: Form::Text, value: "DURATION", help: "How often" },
            Key { name: "pm2_homes", form: Form::List, value: "DIR,…", help: "Homes" },
            Key { name: "servers", form: Form::Toml, value: "TOML", help: "Servers" },
        ],
    };

    type Read = (Option<std::net::SocketAddr>, Duration, Vec<String>, Vec<wire::ServerId>);

    fn read(file: &str, env: &[(&str, &str)], flags: &[&str]) -> Result<Read, Mistakes> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.toml");
        std::fs::write(&path, file).unwrap();
        let flags = ["test", "--config", path.to_str().unwrap()].into_iter().chain(flags.to_vec());
        let matches = clap::Command::new("test").args(SETTINGS.args()).get_matches_from(flags);
        let mut reader = SETTINGS.read(&matches, |name| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })?;
        let second = Duration::from_secs(1);
        let value = (
            reader.value("listen"),
            reader.duration("poll_interval", second * 10, second..=second * 60),
            reader.list("pm2_homes", |text| Ok(text.to_owned())).unwrap_or_default(),
            reader.tables("servers", |server| server.value("id")),
        );
        reader.finish(Some(value))
    }

    #[test]
    fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
        let file = "listen = \"127.0.0.1:1\"";
        let port = |read: Read| read.0.unwrap().port();
        assert_eq!(read("", &[], &[]).unwrap().1, Duration::from_secs(10));
        assert_eq!(port(read(file, &[], &[]).unwrap()), 1);
        let env = [("PM2_TEST_LISTEN", "127.0.0.1:2")];
        assert_eq!(port(read(file, &env, &[]).unwrap()), 2);
        assert_eq!(port(read(file, &env, &["--listen", "127.0.0.1:3"]).unwrap()), 3);
    }

    #[test]
    fn lists_and_tables_can_come_from_the_environment() {
        let env = [("PM2_TEST_PM2_HOMES", "/a, /b"), ("PM2_TEST_SERVERS", "[{id='x'},{id='y'}]")];
        let (_, _, homes, servers) = read("", &env, &[]).unwrap();
        assert_eq!(homes, ["/a", "/b"]);
        assert_eq!(servers.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["x", "y"]);
    }

    #[test]
    fn every_mistake_is_told_at_once_with_its_key() {
        let file = "listen = 5\nlissten = 1\npoll_interval = \"2h\"\n\
                    [[servers]]\nid = \"a b\"\n[[servers]]\nid = \"ok\"\nurll = \"x\"";
        let mistakes = read(file, &[("PM2_TEST_PM2_HOMES", "/a")], &[]).unwrap_err();
        let text = mistakes.to_string();
        let keys: Vec<&str> = mistakes.0.iter().map(|mistake| mistake.key.as_str()).collect();
        assert_eq!(
            keys,
            ["listen", "poll_interval", "servers[0].id", "servers[1].urll", "lissten"],
            "{text}"
        );
        assert!(text.contains("out of range: 1s to 60s"), "{text}");
        assert!(text.contains("unknown key; known are id"), "{text}");
        assert!(text.contains("test.toml"), "{text}");
    }

    #[test]
    fn broken_toml_is_told_without_quoting_the_line() {
        let text = read("ok = 1\ntoken = canary", &[], &[]).unwrap_err().to_string();
        assert!(text.contains("line 2"), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }

    #[test]
    fn a_mistake_names_the_variable_it_came_from() {
        let text = read("", &[("PM2_TEST_LISTEN", "nowhere")], &[]).unwrap_err().to_string();
        assert!(text.contains("listen (PM2_TEST_LISTEN): \"nowhere\""), "{text}");
    }
}
