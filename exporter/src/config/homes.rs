//! `pm2_homes`: which PM2 daemons are watched.

use std::path::{Path, PathBuf};

use service::config::Reader;

/// Each has a connection, a table and a task of its own.
const MOST: usize = 32;
/// The socket's name is added, and a socket's path is at most 107 bytes (unix(7)).
const LONGEST: usize = 107 - "/rpc.sock".len();

/// PM2's directories: one at least, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomePaths {
    /// The first, which has the slots.
    pub first: PathBuf,
    /// All others.
    pub more: Vec<PathBuf>,
}

impl HomePaths {
    /// All, in the order of the configuration.
    pub fn all(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.first).chain(&self.more).map(PathBuf::as_path)
    }

    /// Whether there is more than one, so that everything says which it is of.
    pub fn are_several(&self) -> bool {
        !self.more.is_empty()
    }
}

pub(super) fn read(reader: &mut Reader, env: impl Fn(&str) -> Option<String>) -> Option<HomePaths> {
    let given = reader.has("pm2_homes");
    if let Some(paths) = reader.list("pm2_homes", absolute) {
        return several(reader, paths);
    }
    if given {
        // Not a list; that was told.
        return None;
    }
    let home = env("PM2_HOME")
        .filter(|path| !path.is_empty())
        .or_else(|| env("HOME").map(|home| format!("{home}/.pm2")));
    let Some(home) = home else {
        reader.mistake("pm2_homes", "is not set, and neither PM2_HOME nor HOME is");
        return None;
    };
    let first = absolute(&home).map_err(|message| reader.mistake("pm2_homes", message)).ok()?;
    Some(HomePaths { first, more: Vec::new() })
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if !path.is_absolute() {
        return Err(format!("{text:?} is not an absolute path"));
    }
    if text.len() > LONGEST {
        return Err(format!("{text:?} is too long for a socket: at most {LONGEST} bytes"));
    }
    // A trailing slash would make another label of it.
    Ok(path.components().collect())
}

fn several(reader: &mut Reader, paths: Vec<PathBuf>) -> Option<HomePaths> {
    if paths.len() > MOST {
        reader.mistake("pm2_homes", format!("names {} directories, at most {MOST}", paths.len()));
        return None;
    }
    // Two names of one daemon would tell everything twice.
    let real = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
    for (at, path) in paths.iter().enumerate() {
        if let Some(before) = paths[..at].iter().position(|other| real(other) == real(path)) {
            let key = format!("pm2_homes[{at}]");
            let shown = path.display();
            reader.mistake(&key, format!("{shown} is the directory of pm2_homes[{before}]"));
            return None;
        }
    }
    let mut paths = paths.into_iter();
    let Some(first) = paths.next() else {
        if !reader.was_wrong("pm2_homes") {
            reader.mistake("pm2_homes", "is empty, expected a directory at least");
        }
        return None;
    };
    Some(HomePaths { first, more: paths.collect() })
}
