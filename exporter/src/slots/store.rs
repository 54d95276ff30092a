//! What outlives the exporter: one file a slot, replaced whole, readable by its owner only.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use wire::{CommandId, Deployment, SlotId, Time};

use super::env::Env;
use super::plan::Standing;
use super::start::Start;
use crate::whole;

/// Deployments that are remembered a slot.
const REMEMBERED: usize = 50;

/// Everything about a slot that must not be lost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SlotState {
    /// What it runs, and the change under way.
    pub standing: Standing,
    /// The slot's own environment.
    pub env: Env,
    /// What was deployed, oldest first.
    pub deployments: Vec<Deployed>,
    /// Deployments that ended well, ever.
    pub healthy: u64,
    /// Deployments that failed, ever.
    pub failed: u64,
    /// When the last one ended.
    pub last_deploy_at: Option<Time>,
    /// The placeholder is somebody else's page, taken over as it runs.
    pub foreign_placeholder: bool,
}

/// A deployment with what is needed to run it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deployed {
    /// What is shown of it.
    pub shown: Deployment,
    /// Its own environment.
    #[serde(default)]
    pub env: Env,
    /// What runs it, once known.
    #[serde(default)]
    pub start: Option<Start>,
    /// Where it is asked whether it is well.
    #[serde(default)]
    pub health_path: Option<String>,
    /// It was taken over: its files are not ours.
    #[serde(default)]
    pub imported: bool,
}

impl SlotState {
    /// The deployment of this id.
    pub fn deployed(&self, id: &CommandId) -> Option<&Deployed> {
        self.deployments.iter().find(|deployed| deployed.shown.id == *id)
    }

    /// The same, to be changed.
    pub fn deployed_mut(&mut self, id: &CommandId) -> Option<&mut Deployed> {
        self.deployments.iter_mut().find(|deployed| deployed.shown.id == *id)
    }

    /// Sets variables of the slot's own, or removes them. What was set last counts: deployments
    /// that gave one of these a value of their own lose it, so that going back to one of them does
    /// not bring it back.
    pub fn set_env(&mut self, changes: &BTreeMap<String, Option<String>>) {
        for (name, value) in changes {
            match value {
                Some(value) => self.env.insert(name.clone(), value.clone()),
                None => self.env.remove(name),
            };
            for deployed in &mut self.deployments {
                deployed.env.remove(name);
            }
        }
    }

    /// Forgets deployments that nobody can go back to, oldest first. Gives their ids.
    pub fn forget(&mut self) -> Vec<CommandId> {
        let mut gone = Vec::new();
        while self.deployments.len() > REMEMBERED {
            let old = self.deployments.iter().position(|deployed| {
                deployed.shown.status.is_final() && !self.standing.kept.contains(&deployed.shown.id)
            });
            let Some(old) = old else { break };
            gone.push(self.deployments.remove(old).shown.id);
        }
        gone
    }
}

/// The folders under `[slots] root`.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Under this folder, which is made when it is first needed.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A slot's releases.
    pub fn releases(&self, slot: &SlotId) -> PathBuf {
        self.root.join("releases").join(slot.as_str())
    }

    /// One release.
    pub fn release(&self, slot: &SlotId, id: &CommandId) -> PathBuf {
        self.releases(slot).join(id.as_str())
    }

    /// Where the home of git, npm and their like is: caches are shared by all slots.
    pub fn tools_home(&self) -> PathBuf {
        self.root.join("home")
    }

    /// Where a slot's process writes to.
    pub fn process_log(&self, process: &str, stream: &str) -> PathBuf {
        self.root.join("logs").join(format!("{process}-{stream}.log"))
    }

    /// A deployment's log.
    pub fn log(&self, slot: &SlotId, id: &CommandId) -> PathBuf {
        self.root.join("deployments").join(slot.as_str()).join(format!("{id}.log"))
    }

    fn file(&self, slot: &SlotId) -> PathBuf {
        self.root.join("state").join(format!("{slot}.json"))
    }

    /// Makes the folders of a slot.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn prepare(&self, slot: &SlotId) -> io::Result<()> {
        let folders = [
            self.root.join("state"),
            self.root.join("logs"),
            self.releases(slot),
            self.root.join("deployments").join(slot.as_str()),
            self.tools_home(),
        ];
        for folder in folders {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        }
        Ok(())
    }

    /// What is known of a slot; nothing is known of one that was never changed.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn load(&self, slot: &SlotId) -> io::Result<SlotState> {
        match fs::read(self.file(slot)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                // The message must not quote the file: it holds environments.
                let place = format!("line {}, column {}", error.line(), error.column());
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} makes no sense at {place}", self.file(slot).display()),
                )
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(SlotState::default()),
            Err(error) => Err(error),
        }
    }

    /// Replaces what is known of a slot: whole, or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, slot: &SlotId, state: &SlotState) -> io::Result<()> {
        self.prepare(slot)?;
        write_whole(&self.file(slot), &serde_json::to_vec(state)?)
    }

    /// Holds a slot against other programs that change it (`slots up` beside `serve`); `None`
    /// when another holds it. It is let go when dropped, and when the program ends.
    ///
    /// # Errors
    /// The lock's file cannot be made.
    pub fn lock(&self, slot: &SlotId) -> io::Result<Option<File>> {
        self.prepare(slot)?;
        let path = self.root.join("state").join(format!("{slot}.lock"));
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a release, if it is there: set aside first, so that half of one is never found
    /// under its name.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove_release(&self, slot: &SlotId, id: &CommandId) -> io::Result<()> {
        let aside = self.releases(slot).join(format!(".gone-{id}"));
        match fs::rename(self.release(slot, id), &aside) {
            Ok(()) => fs::remove_dir_all(aside),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes everything among a slot's releases that `state` does not know: what a crash left.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn sweep(&self, slot: &SlotId, state: &SlotState) -> io::Result<()> {
        let folder = match fs::read_dir(self.releases(slot)) {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let changing = state.standing.change.as_ref().map(|change| change.id.as_str());
        for entry in folder {
            let entry = entry?;
            let name = entry.file_name();
            let known = name.to_str().is_some_and(|name| {
                state.standing.kept.iter().any(|kept| kept.as_str() == name)
                    || changing == Some(name)
            });
            if !known {
                fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()))?;
            }
        }
        Ok(())
    }
}

/// Replaces a file: whole, or not at all, and readable by its owner only.
///
/// # Errors
/// It cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    whole::replace(path, bytes, 0o600)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_saved_is_read_again_and_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().join("slots"));
        let slot: SlotId = "a".parse().unwrap();
        assert_eq!(store.load(&slot).unwrap(), SlotState::default());
        let mut state = SlotState::default();
        state.env.insert("KEY".into(), "canary".into());
        store.save(&slot, &state).unwrap();
        assert_eq!(store.load(&slot).unwrap(), state);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&store.file(&slot)), 0o600);
        assert_eq!(mode(store.root()), 0o700);
        fs::write(store.file(&slot), "{\"env\": \"canary\"").unwrap();
        assert!(!store.load(&slot).unwrap_err().to_string().contains("canary"));
    }

    #[test]
    fn two_programs_do_not_change_one_slot() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().to_owned());
        let slot: SlotId = "a".parse().unwrap();
        let held = store.lock(&slot).unwrap();
        assert!(held.is_some() && store.lock(&slot).unwrap().is_none());
        drop(held);
        assert!(store.lock(&slot).unwrap().is_some());
    }

    #[test]
    fn half_made_folders_are_swept_and_kept_releases_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().to_owned());
        let slot: SlotId = "a".parse().unwrap();
        let mut state = SlotState::default();
        state.standing.kept.push("kept".parse().unwrap());
        for name in ["kept", "half", ".gone-old"] {
            fs::create_dir_all(store.releases(&slot).join(name).join("x")).unwrap();
        }
        store.sweep(&slot, &state).unwrap();
        let left: Vec<_> = fs::read_dir(store.releases(&slot)).unwrap().flatten().collect();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].file_name(), "kept");
    }
}
