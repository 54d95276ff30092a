//! Files that list servers, looked at again and again. One that is wrong, or half written, leaves
//! what it said before as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file_sd::{Listed, parse};
use super::sign::Sign;
use crate::client::ClientTls;

/// Largest file that is read.
const MOST: u64 = 16 << 20;
/// Looks that a file may be missing in a row: some programs remove one to write it anew.
const MISSING: u32 = 2;

#[derive(Clone, Debug, Default)]
struct Known {
    /// Of the version that was read last.
    sign: Option<Sign>,
    /// That version was too young to be sure that it stays.
    fresh: bool,
    /// What the last good version said; `None` when there was none.
    servers: Option<Arc<[Listed]>>,
    error: Option<String>,
    missing: u32,
    /// Its folder could not be read at the last look.
    away: bool,
}

impl Known {
    /// Says what is wrong, where it was not said before or is `news`.
    fn fail(&mut self, path: &Path, error: String, news: bool) {
        if news || self.error.as_ref() != Some(&error) {
            for line in error.lines() {
                tracing::error!(file = %path.display(), "not used: {line}");
            }
        }
        self.error = Some(error);
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Files {
    known: BTreeMap<PathBuf, Known>,
    /// Paths with a `*` whose folder cannot be read, and of which no file is known; and why not.
    away: BTreeMap<PathBuf, String>,
}

impl Files {
    /// No file is known, and none is away.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty() && self.away.is_empty()
    }

    /// Every server of every good version, by the names of the files.
    pub(super) fn servers(&self) -> impl Iterator<Item = &Listed> {
        self.known
            .values()
            .flat_map(|known| known.servers.iter().flat_map(|servers| servers.iter()))
    }

    /// Every file, and what is wrong with it.
    pub fn all(&self) -> impl Iterator<Item = (&Path, Option<&str>)> {
        let known = self.known.iter().map(|(path, known)| (path.as_path(), known.error.as_deref()));
        known.chain(self.away.iter().map(|(path, error)| (path.as_path(), Some(error.as_str()))))
    }

    /// Whether some file was never read in a good version.
    pub(super) fn has_unread(&self) -> bool {
        !self.away.is_empty() || self.known.values().any(|known| known.servers.is_none())
    }

    /// Takes down which folders are away of which no file is known. Says whether one is away no more.
    fn note_away(&mut self, paths: &[PathBuf], folders: &BTreeMap<PathBuf, String>) -> bool {
        let of = |path: &PathBuf| {
            let folder = path.parent().filter(|_| has_star(path));
            let error = folders.get(folder?)?;
            if self.known.keys().any(|known| known.parent() == folder) {
                return None;
            }
            Some((path.clone(), format!("its folder cannot be read: {error}")))
        };
        let away: BTreeMap<PathBuf, String> = paths.iter().filter_map(of).collect();
        for (path, error) in &away {
            if self.away.get(path) != Some(error) {
                tracing::error!(file = %path.display(), "not used: {error}");
            }
        }
        let is_back = self.away.keys().any(|path| !away.contains_key(path));
        self.away = away;
        is_back
    }

    /// Looks at the files that these paths mean, reads those that changed, or all when `again`,
    /// and says whether their servers may have changed.
    pub(super) fn look(&mut self, paths: &[PathBuf], tls: &ClientTls, again: bool) -> bool {
        let Found { files: found, away } = found(paths);
        let mut changed = false;
        self.known.retain(|path, known| {
            // Nobody can say then that the file is gone.
            if let Some(error) = path.parent().and_then(|folder| away.get(folder)) {
                known.fail(path, format!("its folder cannot be read: {error}"), false);
                known.away = true;
                return true;
            }
            known.missing = if found.contains(path) { 0 } else { known.missing + 1 };
            let stays = known.missing < MISSING && !(again && known.missing > 0);
            if !stays {
                changed = true;
                let servers = known.servers.as_ref().map_or(0, |servers| servers.len());
                tracing::warn!(file = %path.display(), servers, "gone, and its servers with it");
            }
            stays
        });
        for path in found {
            let known = self.known.entry(path.clone()).or_default();
            let sign = Sign::of(&path);
            let looked_at = known.servers.is_some() || known.error.is_some();
            let back = std::mem::take(&mut known.away);
            if looked_at && sign == known.sign && !known.fresh && !again && !back {
                continue;
            }
            let same = looked_at && sign == known.sign && !again;
            known.sign = sign;
            known.fresh = sign.is_some_and(|sign| sign.is_fresh());
            match read(&path, tls) {
                Ok(servers) => {
                    let before = known.servers.as_ref().map(|old| comparable(old));
                    changed |= before != Some(comparable(&servers));
                    known.servers = Some(servers.into());
                    known.error = None;
                }
                Err(error) => known.fail(&path, error, !same),
            }
        }
        self.note_away(paths, &away) || changed
    }
}

fn comparable(listed: &[Listed]) -> Vec<(&crate::config::Target, &str)> {
    listed.iter().map(|it| (&*it.target, it.note.as_str())).collect()
}

fn read(path: &Path, tls: &ClientTls) -> Result<Vec<Listed>, String> {
    let text = service::files::text(path, MOST)?;
    let json = path.extension().is_some_and(|ending| ending == "json");
    parse(&text, json, path.parent().unwrap_or(Path::new("")), tls)
}

/// Whether the last part of a path stands for several files.
fn has_star(path: &Path) -> bool {
    path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.contains('*'))
}

/// What paths mean.
#[derive(Default)]
struct Found {
    files: BTreeSet<PathBuf>,
    /// Folders that cannot be read, as they stand in the files' names, and why not.
    away: BTreeMap<PathBuf, String>,
}

/// The files that paths mean whose last part may have `*`. One without it is meant whether it is
/// there or not.
fn found(paths: &[PathBuf]) -> Found {
    let mut all = Found::default();
    for path in paths {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if !has_star(path) {
            all.files.insert(path.clone());
            continue;
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let read = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let entries = match fs::read_dir(read) {
            Ok(entries) => entries,
            // It may come back, as what it was.
            Err(error) => {
                all.away.insert(folder.to_owned(), error.to_string());
                continue;
            }
        };
        for entry in entries.flatten() {
            let fits = entry.file_name().to_str().is_some_and(|it| fits(name, it));
            if fits && entry.path().is_file() {
                all.files.insert(path.with_file_name(entry.file_name()));
            }
        }
    }
    all
}

/// Whether a name fits a pattern in which `*` stands for anything. Hidden files fit none.
fn fits(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let mut parts = pattern.split('*');
    let (Some(first), Some(last)) = (parts.next(), parts.next_back()) else {
        return pattern == name;
    };
    let Some(mut rest) = name.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else {
        return false;
    };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name, good) in [
            ("*.json", "a.json", true),
            ("*.json", ".a.json", false),
            ("*.json", "a.yml", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "ac", false),
            ("a*a", "a", false),
            ("a.json", "a.json", true),
        ] {
            assert_eq!(fits(pattern, name), good, "{pattern} {name}");
        }
    }

    #[test]
    fn a_bad_version_changes_nothing_and_a_good_one_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let paths = [folder.path().join("*.json"), folder.path().join("b.yml")];
        let tls = ClientTls::default();
        let mut files = Files::default();
        let ids = |files: &Files| -> Vec<String> {
            files.servers().map(|it| it.target.id.to_string()).collect()
        };
        fs::write(&path, r#"[{"targets": ["a:1"]}]"#).unwrap();
        assert!(files.look(&paths, &tls, false));
        assert_eq!(ids(&files), ["a-1"]);
        assert!(files.has_unread(), "b.yml is meant, and is not there");
        assert!(!files.look(&paths, &tls, false), "nothing new");
        // Half written, and then whole; within the clock's tick.
        fs::write(&path, r#"[{"targets": ["a:2"]"#).unwrap();
        assert!(!files.look(&paths, &tls, false));
        assert_eq!(ids(&files), ["a-1"]);
        assert_eq!(files.all().filter(|(_, error)| error.is_some()).count(), 2);
        fs::write(&path, r#"[{"targets": ["a:2"]}]"#).unwrap();
        assert!(files.look(&paths, &tls, false));
        assert_eq!(ids(&files), ["a-2"]);
        fs::remove_file(&path).unwrap();
        assert!(!files.look(&paths, &tls, false), "it may be written anew");
        assert_eq!(ids(&files), ["a-2"]);
        assert!(files.look(&paths, &tls, false));
        assert!(ids(&files).is_empty());
    }

    #[test]
    fn a_folder_that_cannot_be_read_takes_no_server_away() {
        let folder = tempfile::tempdir().unwrap();
        let (lists, away) = (folder.path().join("lists"), folder.path().join("away"));
        fs::create_dir(&lists).unwrap();
        fs::write(lists.join("a.json"), r#"[{"targets": ["a:1"]}]"#).unwrap();
        let (paths, tls) = ([lists.join("*.json")], ClientTls::default());
        let mut files = Files::default();
        assert!(files.look(&paths, &tls, false));
        fs::rename(&lists, &away).unwrap();
        for again in [false, false, true, false] {
            assert!(!files.look(&paths, &tls, again));
        }
        assert_eq!(files.servers().count(), 1);
        let error = files.all().find_map(|(_, error)| error.map(str::to_owned)).unwrap();
        assert!(error.starts_with("its folder cannot be read: "), "{error}");
        fs::rename(&away, &lists).unwrap();
        assert!(!files.look(&paths, &tls, false));
        assert_eq!(files.all().filter(|(_, error)| error.is_some()).count(), 0);
        // The folder is not what is meant any more.
        assert!(files.look(&[], &tls, true));
        assert!(files.is_empty());
    }

    #[test]
    fn a_folder_that_is_away_from_the_beginning_may_hold_anything() {
        let folder = tempfile::tempdir().unwrap();
        let lists = folder.path().join("lists");
        let (paths, tls) = ([lists.join("*.json"), lists.join("*.yml")], ClientTls::default());
        let mut files = Files::default();
        for again in [false, false, true] {
            assert!(!files.look(&paths, &tls, again));
            assert!(files.has_unread() && !files.is_empty());
        }
        let wrong: Vec<_> = files.all().map(|(path, error)| (path.to_owned(), error)).collect();
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        for (path, error) in wrong {
            assert!(
                paths.contains(&path) && error.unwrap().contains("cannot be read"),
                "{error:?}"
            );
        }
        fs::create_dir(&lists).unwrap();
        assert!(files.look(&paths, &tls, false), "it is known now that nothing is there");
        assert!(!files.has_unread() && files.is_empty());
        fs::write(lists.join("a.json"), r#"[{"targets": ["a:1"]}]"#).unwrap();
        assert!(files.look(&paths, &tls, false));
        assert_eq!(files.servers().count(), 1);
        // What is known of it is not told twice.
        fs::rename(&lists, folder.path().join("away")).unwrap();
        assert!(!files.look(&paths, &tls, false));
        assert_eq!(files.all().count(), 1);
    }
}
