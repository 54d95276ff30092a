//! What a change of a slot does next. Pure: it takes how a step went and gives the next one, so
//! that every path, crashes included, can be tried against a model.
//!
//! The invariant: once at rest, a slot has exactly one PM2 process, and it is the one that
//! [`Standing::current`] names.

use serde::{Deserialize, Serialize};
use wire::CommandId;

/// What a slot's process is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Occupant {
    /// The page that says that the slot is free.
    Placeholder,
    /// A release, by the id of its deployment.
    Release(CommandId),
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A new release.
    Deploy,
    /// The placeholder.
    Stop,
    /// The same, started anew.
    Restart,
    /// An earlier release, or the former occupant.
    Rollback(Option<CommandId>),
}

/// Why a wish is not begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another change is not at its end.
    #[error("another change of the slot is under way")]
    Busy,
    /// There is nothing to go back to.
    #[error("the slot has no former release to go back to")]
    NoFormer,
    /// The deployment is not kept.
    #[error("deployment {0} is not kept; see the slot's deployments")]
    NotKept(CommandId),
    /// It runs already.
    #[error("deployment {0} is what the slot runs")]
    Runs(CommandId),
}

/// Where a change stands: the step that is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Fetch the repository into a new folder.
    Fetch,
    /// Install its packages.
    Install,
    /// Build it.
    Build,
    /// Try it on a spare port.
    Try,
    /// Delete the process that runs and start the new one.
    Switch,
    /// See whether the new one is well on the slot's port.
    Check,
    /// Delete the new one and start the old one.
    PutBack,
    /// Neither could be started: start the placeholder.
    LastResort,
}

impl Phase {
    /// For people.
    pub fn doing(self) -> &'static str {
        match self {
            Self::Fetch => "cloning",
            Self::Install => "installing",
            Self::Build => "building",
            Self::Try => "probing",
            Self::Switch => "switching",
            Self::Check => "checking the slot's port",
            Self::PutBack => "putting the former release back",
            Self::LastResort => "starting the placeholder",
        }
    }

    /// Whether what runs was not touched yet.
    pub fn is_before_switch(self) -> bool {
        matches!(self, Self::Fetch | Self::Install | Self::Build | Self::Try)
    }
}

/// A change under way. It is on disk before the step that it names is begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Id of the command, and of the deployment if it is one.
    pub id: CommandId,
    /// What ran when it began.
    pub from: Occupant,
    /// What is to run.
    pub to: Occupant,
    /// The next step.
    pub phase: Phase,
    /// Whether what ran is put back when the new one is not well.
    pub puts_back: bool,
    /// What went wrong, where something did.
    pub failure: Option<String>,
}

/// What a slot runs, ran, and may run again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// What it is to run when at rest.
    pub current: Occupant,
    /// What it ran before.
    pub former: Option<Occupant>,
    /// Releases that are kept, oldest first.
    pub kept: Vec<CommandId>,
    /// The change under way.
    pub change: Option<Change>,
}

impl Default for Standing {
    fn default() -> Self {
        Self { current: Occupant::Placeholder, former: None, kept: Vec::new(), change: None }
    }
}

/// How a step went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Went {
    /// Done.
    Well,
    /// It did not work, and will not by trying again.
    Wrong(String),
}

/// How a change ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The change.
    pub id: CommandId,
    /// Why it failed; none when it did not.
    pub failure: Option<String>,
    /// What was put back, where that was needed.
    pub put_back: Option<Occupant>,
    /// The release that nobody needs any more.
    pub discard: Option<CommandId>,
}

/// What PM2 was seen to run as the slot's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// No process of the slot's name.
    Nothing,
    /// This.
    Occupant(Occupant),
    /// Something else, or several.
    Other,
}

impl Standing {
    /// Begins a change; [`Self::phase`] then says what to do first.
    ///
    /// # Errors
    /// See [`Refusal`]. Nothing is changed.
    pub fn begin(&mut self, id: CommandId, wish: Wish) -> Result<(), Refusal> {
        if self.change.is_some() {
            return Err(Refusal::Busy);
        }
        let from = self.current.clone();
        let (to, phase, puts_back) = match wish {
            Wish::Deploy => (Occupant::Release(id.clone()), Phase::Fetch, true),
            Wish::Stop => (Occupant::Placeholder, Phase::Switch, false),
            Wish::Restart => (from.clone(), Phase::Switch, false),
            Wish::Rollback(wanted) => {
                let to = match wanted {
                    Some(id) => Occupant::Release(id),
                    None => self.former.clone().ok_or(Refusal::NoFormer)?,
                };
                match &to {
                    Occupant::Release(id) if to == from => return Err(Refusal::Runs(id.clone())),
                    Occupant::Release(id) if !self.kept.contains(id) => {
                        return Err(Refusal::NotKept(id.clone()));
                    }
                    Occupant::Placeholder if to == from => return Err(Refusal::NoFormer),
                    Occupant::Release(_) => (to, Phase::Try, true),
                    Occupant::Placeholder => (to, Phase::Switch, true),
                }
            }
        };
        self.change = Some(Change { id, from, to, phase, puts_back, failure: None });
        Ok(())
    }

    /// The step to be done.
    pub fn phase(&self) -> Option<Phase> {
        self.change.as_ref().map(|change| change.phase)
    }

    /// The step of [`Self::phase`] went so. Gives the end of the change when it was the last.
    pub fn went(&mut self, went: Went) -> Option<End> {
        let change = self.change.as_mut()?;
        let reason = match went {
            Went::Well => {
                change.phase = match change.phase {
                    Phase::Fetch => Phase::Install,
                    Phase::Install => Phase::Build,
                    Phase::Build => Phase::Try,
                    Phase::Try => Phase::Switch,
                    Phase::Switch => Phase::Check,
                    Phase::Check => return self.succeed(),
                    Phase::PutBack => return self.fail(Rest::PutBack),
                    Phase::LastResort => return self.fail(Rest::Placeholder),
                };
                return None;
            }
            Went::Wrong(reason) => reason,
        };
        let phase = change.phase;
        let told = change.failure.get_or_insert_with(|| reason.clone());
        match phase {
            Phase::Fetch | Phase::Install | Phase::Build | Phase::Try => self.fail(Rest::Before),
            Phase::Check if !change.puts_back => self.fail(Rest::After),
            Phase::Switch | Phase::Check if change.puts_back => {
                change.phase = Phase::PutBack;
                None
            }
            Phase::Switch | Phase::Check | Phase::PutBack => {
                if phase == Phase::PutBack {
                    told.push_str(&format!("; the former could not be put back: {reason}"));
                }
                change.phase = Phase::LastResort;
                None
            }
            // PM2 takes nothing at all: whoever looks sees no process, and is told why.
            Phase::LastResort => {
                told.push_str(&format!("; nor could the placeholder be started: {reason}"));
                self.fail(Rest::Placeholder)
            }
        }
    }

    /// Takes up a change that was cut off, with what PM2 is seen to run. Gives its end when
    /// nothing is left to do.
    pub fn resume(&mut self, seen: &Seen) -> Option<End> {
        let change = self.change.as_mut()?;
        let is = |occupant: &Occupant| *seen == Seen::Occupant(occupant.clone());
        let (from, to) = (is(&change.from), is(&change.to));
        let cut_off = format!("it was cut off while {}", change.phase.doing());
        match change.phase {
            phase if phase.is_before_switch() => self.went(Went::Wrong(cut_off)),
            // Restart: from and to are the same, so that nothing tells whether it was done.
            Phase::Switch if !change.puts_back => None,
            Phase::Switch if to => self.went(Went::Well),
            Phase::Switch if from => {
                change.failure.get_or_insert(cut_off);
                self.fail(Rest::Before)
            }
            Phase::Check if to => None,
            Phase::Check if !change.puts_back => {
                change.phase = Phase::Switch;
                None
            }
            Phase::Switch | Phase::Check => self.went(Went::Wrong(cut_off)),
            _ => None,
        }
    }

    fn succeed(&mut self) -> Option<End> {
        let change = self.change.take()?;
        if change.from != change.to {
            self.former = Some(change.from);
        }
        if let Occupant::Release(id) = &change.to {
            // The most recently used are kept longest.
            self.kept.retain(|kept| kept != id);
            self.kept.push(id.clone());
        }
        self.current = change.to;
        Some(End { id: change.id, failure: None, put_back: None, discard: None })
    }

    fn fail(&mut self, rest: Rest) -> Option<End> {
        let change = self.change.take()?;
        let mut put_back = None;
        match rest {
            Rest::Before => {}
            Rest::After => self.current = change.to.clone(),
            Rest::PutBack => put_back = Some(change.from.clone()),
            Rest::Placeholder => {
                self.current = Occupant::Placeholder;
                self.former = Some(change.from.clone());
                put_back = Some(Occupant::Placeholder);
            }
        }
        let discard = match change.to {
            Occupant::Release(id) if !self.kept.contains(&id) && !self.runs(&id) => Some(id),
            _ => None,
        };
        Some(End { id: change.id, failure: change.failure, put_back, discard })
    }

    fn runs(&self, id: &CommandId) -> bool {
        matches!(&self.current, Occupant::Release(current) if current == id)
    }

    /// Takes the oldest kept releases out until `keep` are left; never the one that runs, nor
    /// the former one.
    pub fn prune(&mut self, keep: usize) -> Vec<CommandId> {
        let mut out = Vec::new();
        let needed = |occupant: Option<&Occupant>, id: &CommandId| matches!(occupant, Some(Occupant::Release(needed)) if needed == id);
        while self.kept.len() > keep {
            let old = self.kept.iter().position(|id| {
                !needed(Some(&self.current), id) && !needed(self.former.as_ref(), id)
            });
            let Some(old) = old else { break };
            out.push(self.kept.remove(old));
        }
        out
    }
}

/// What a failed change leaves running.
enum Rest {
    /// What ran, untouched.
    Before,
    /// What was to run.
    After,
    /// What ran, started anew.
    PutBack,
    /// The placeholder.
    Placeholder,
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
