//! Configuration in layers: defaults, under a TOML file, under environment variables, under
//! flags. Everything that is wrong is told at once, each mistake with its key and where it
//! stands, before anything is bound or opened.

mod mistakes;
mod reader;

use std::path::PathBuf;

use clap::{Arg, ArgMatches};
use toml::Table;

pub use mistakes::{Mistake, Mistakes};
pub use reader::Reader;

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
    /// Every top-level key of its own.
    pub keys: &'static [Key],
    /// Those that other programs have as well.
    pub shared: &'static [Key],
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
            .chain(self.all().map(|key| {
                Arg::new(key.name)
                    .long(key.name.replace('_', "-"))
                    .value_name(key.value)
                    .help(format!("{} [env: {}]", key.help, self.variable(key.name)))
            }))
            .collect()
    }

    fn all(&self) -> impl Iterator<Item = &'static Key> {
        self.keys.iter().chain(self.shared)
    }

    fn variable(&self, key: &str) -> String {
        format!("{}_{}", self.env_prefix, key.to_ascii_uppercase())
    }

    /// The configuration file, where a flag or a variable names one.
    pub fn file(
        &self,
        matches: &ArgMatches,
        env: impl Fn(&str) -> Option<String>,
    ) -> Option<PathBuf> {
        let named = matches.get_one::<PathBuf>("config").cloned();
        named.or_else(|| env(&format!("{}_CONFIG", self.env_prefix)).map(PathBuf::from))
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
        let file = self.file(matches, &env);
        let mut reader = match &file {
            Some(path) => Reader::from_file(path)?,
            None => Reader::new(Table::new(), "", ""),
        };
        for key in self.all() {
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

#[cfg(test)]
mod tests;
