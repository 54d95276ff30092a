//! `dump.pm2`: the list that `pm2 resurrect` starts at the next boot, written as `pm2 save`
//! writes it, without running it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use serde_json::{Map, Value};
use wire::AppName;

use crate::filter::Filter;
use crate::whole;

/// Why the list was not saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// PM2's list makes no sense.
    #[error("PM2's list makes no sense: {0}")]
    Malformed(String),
    /// The saved list has apps that PM2 does not have now.
    #[error("not saved: dump.pm2 has {0}, which PM2 does not run now; 'pm2 save' would drop them")]
    Fuller(String),
    /// A file cannot be written.
    #[error("dump.pm2 cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// How many processes of each name there are.
pub type Counts = BTreeMap<String, u32>;

/// How the saved list differs from what PM2 has now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// Processes that PM2 has and a reboot would lose, by their names.
    pub missing: Counts,
    /// Processes that a reboot would start and PM2 does not have.
    pub extra: Counts,
}

/// Compares the saved list with `running`, as far as `filter` takes what is saved; `None` when
/// nothing was ever saved or the file makes no sense.
pub fn drift(home: &Path, running: &Counts, filter: &Filter) -> Option<Drift> {
    let mut saved = saved(home)?;
    let takes = |name: AppName| filter.takes(&name, false);
    saved.retain(|name, _| name.parse().is_ok_and(takes));
    Some(Drift { missing: beyond(running, &saved), extra: beyond(&saved, running) })
}

/// How many more of each there are than others.
fn beyond(counts: &Counts, others: &Counts) -> Counts {
    let more = |(name, count): (&String, &u32)| {
        let more = count.saturating_sub(others.get(name).copied().unwrap_or(0));
        (more > 0).then(|| (name.clone(), more))
    };
    counts.iter().filter_map(more).collect()
}

/// Remembers the last comparison, and makes it again when either list changed.
#[derive(Debug, Default)]
pub struct Comparison {
    filter: Filter,
    modified: Option<SystemTime>,
    running: Counts,
    counted: Option<(u32, u32)>,
}

impl Comparison {
    /// Of what `filter` takes.
    pub fn new(filter: Filter) -> Self {
        Self { filter, ..Self::default() }
    }

    /// How many processes the saved list lacks, and how many it has too many. `None` when nothing
    /// was ever saved, and while nothing runs: without a daemon that is not the list's fault.
    pub fn counts(&mut self, home: &Path, running: Counts) -> Option<(u32, u32)> {
        let modified = fs::metadata(home.join("dump.pm2")).and_then(|found| found.modified()).ok();
        if self.modified != modified || self.running != running {
            let sum =
                |counts: &Counts| counts.values().fold(0, |sum: u32, n| sum.saturating_add(*n));
            self.counted = drift(home, &running, &self.filter)
                .map(|drift| (sum(&drift.missing), sum(&drift.extra)));
            (self.modified, self.running) = (modified, running);
        }
        self.counted.filter(|_| !self.running.is_empty())
    }
}

fn saved(home: &Path) -> Option<Counts> {
    #[derive(serde::Deserialize)]
    struct Saved {
        name: String,
    }
    let text = fs::read(home.join("dump.pm2")).ok()?;
    let list: Vec<Saved> = serde_json::from_slice(&text).ok()?;
    let mut counts = Counts::new();
    list.into_iter().for_each(|saved| *counts.entry(saved.name).or_default() += 1);
    Some(counts)
}

/// Saves PM2's list: `list` is the reply of `getMonitorData`. Apps named in `gone` may be in
/// the saved list and not in this one: they were deleted on purpose.
///
/// # Errors
/// See [`SaveError`]; the saved list is then as it was.
pub fn save(home: &Path, list: &[u8], gone: &[&str]) -> Result<(), SaveError> {
    let reply: Value =
        serde_json::from_slice(list).map_err(|error| SaveError::Malformed(error.to_string()))?;
    let processes = reply
        .get("args")
        .and_then(|args| args.get(0))
        .and_then(Value::as_array)
        .ok_or_else(|| SaveError::Malformed("it is no list".to_owned()))?;
    let mut running = BTreeSet::new();
    let mut records: Vec<Map<String, Value>> = Vec::with_capacity(processes.len());
    for process in processes {
        let Some(Value::Object(env)) = process.get("pm2_env") else { continue };
        // Modules are started by PM2 itself.
        if env.get("pmx_module").and_then(Value::as_bool) == Some(true) {
            continue;
        }
        running.extend(env.get("name").and_then(Value::as_str).map(str::to_owned));
        let mut record = env.clone();
        record.remove("instances");
        record.remove("pm_id");
        records.push(record);
    }
    let lost: Vec<String> = saved(home)
        .unwrap_or_default()
        .into_keys()
        .filter(|name| !running.contains(name) && !gone.contains(&name.as_str()))
        .collect();
    if !lost.is_empty() {
        return Err(SaveError::Fuller(lost.join(", ")));
    }
    let text = serde_json::to_vec_pretty(&records)
        .map_err(|error| SaveError::Malformed(error.to_string()))?;
    write(home, &text)?;
    Ok(())
}

/// The former file becomes the backup, and the new one takes its place whole. It holds
/// environments, so only its owner may read a new one.
fn write(home: &Path, text: &[u8]) -> io::Result<()> {
    let (dump, backup) = (home.join("dump.pm2"), home.join("dump.pm2.bak"));
    let mode = match fs::metadata(&dump) {
        Ok(metadata) => {
            fs::copy(&dump, &backup)?;
            metadata.permissions().mode() & 0o777
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0o600,
        Err(error) => return Err(error),
    };
    whole::replace(&dump, text, mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] = include_bytes!("../../tests/captures/pm2-7.0.4-list.json");

    fn names(home: &Path) -> Vec<String> {
        saved(home).unwrap().into_keys().collect()
    }

    #[test]
    fn a_list_is_saved_as_pm2_saves_it() {
        let home = tempfile::tempdir().unwrap();
        save(home.path(), LIST, &[]).unwrap();
        let text = fs::read_to_string(home.path().join("dump.pm2")).unwrap();
        let list: Vec<Map<String, Value>> = serde_json::from_str(&text).unwrap();
        assert_eq!(list.len(), 4);
        for record in list {
            assert!(!record.contains_key("pm_id") && !record.contains_key("instances"));
            assert!(record.contains_key("pm_exec_path") && record.contains_key("env"));
        }
        let mode = fs::metadata(home.path().join("dump.pm2")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_fuller_list_is_never_replaced_unasked() {
        let home = tempfile::tempdir().unwrap();
        save(home.path(), LIST, &[]).unwrap();
        let fewer = br#"{"args":[[{"pm2_env":{"name":"api"}}]]}"#;
        let error = save(home.path(), fewer, &["crash"]).unwrap_err().to_string();
        assert!(error.contains("has clus, which"), "{error}");
        assert_eq!(names(home.path()), ["api", "clus", "crash"]);
        save(home.path(), fewer, &["crash", "clus"]).unwrap();
        assert_eq!(names(home.path()), ["api"]);
        let backup = fs::read_to_string(home.path().join("dump.pm2.bak")).unwrap();
        assert!(backup.contains("clus"));
    }

    fn counts<const N: usize>(of: [(&str, u32); N]) -> Counts {
        of.map(|(name, count)| (name.to_owned(), count)).into()
    }

    #[test]
    fn drift_is_told_both_ways() {
        let home = tempfile::tempdir().unwrap();
        let running = counts([("api", 1), ("new", 1)]);
        let filter = Filter::default();
        assert_eq!(drift(home.path(), &running, &filter), None);
        save(home.path(), LIST, &[]).unwrap();
        let found = drift(home.path(), &running, &filter).unwrap();
        assert_eq!(found.missing, counts([("new", 1)]));
        assert_eq!(found.extra, counts([("clus", 2), ("crash", 1)]));
        // What is not watched is not known to be away.
        let filter = Filter { exclude: vec!["c*h".to_owned()], ..filter };
        let found = drift(home.path(), &running, &filter).unwrap();
        assert_eq!(found.extra, counts([("clus", 2)]));
        let told = Comparison::new(filter).counts(home.path(), running);
        assert_eq!(told, Some((1, 2)));
    }

    #[test]
    fn processes_are_compared_and_not_their_names_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("dump.pm2");
        fs::write(path, r#"[{"name":"web"},{"name":"web"},{"name":"api"}]"#).unwrap();
        let told = |web| {
            let running = counts([("api", 1), ("web", web)]);
            Comparison::default().counts(home.path(), running)
        };
        assert_eq!([1, 2, 4].map(told), [Some((0, 1)), Some((0, 0)), Some((2, 0))]);
        let both = Comparison::default().counts(home.path(), counts([("api", 1)]));
        assert_eq!(both, Some((0, 2)));
    }

    #[test]
    fn nonsense_replaces_nothing() {
        let home = tempfile::tempdir().unwrap();
        for wrong in [&b"{}"[..], b"x", br#"{"args":[{}]}"#] {
            assert!(matches!(save(home.path(), wrong, &[]), Err(SaveError::Malformed(_))));
        }
        assert!(!home.path().join("dump.pm2").exists());
    }
}
