//! What can be done, in words: the buttons of a page, and the line that does the same from a
//! shell.

use wire::{Action, Process, ServerId, Slot, SlotType, Status, Target};

use crate::{Homes, links};

/// One thing that can be done.
pub(crate) struct Act {
    pub(crate) word: &'static str,
    /// Its own page, which asks first; a form posts there too.
    pub(crate) href: String,
    /// Hurts nobody: done without asking.
    pub(crate) direct: bool,
    /// What it does is not undone by another button.
    pub(crate) danger: bool,
    /// Wanted now and then only: it stands behind the others.
    pub(crate) rare: bool,
    /// The same from a shell.
    pub(crate) line: String,
}

impl Act {
    /// `None` where the target has no address.
    fn new(
        base: &str,
        server: &ServerId,
        target: &Target,
        action: Action,
        home: Option<&str>,
    ) -> Option<Self> {
        Some(Self {
            word: word(action),
            href: links::act(server, target, action, home)?,
            direct: matches!(action, Action::Start | Action::Reset),
            danger: is_danger(action),
            rare: matches!(
                action,
                Action::Scale
                    | Action::Signal
                    | Action::Trigger
                    | Action::Reset
                    | Action::Flush
                    | Action::Delete
            ),
            line: line(base, server, target, action, home)?,
        })
    }

    /// What can be done to an app as it is now, of what the visitor may. Where it takes a choice
    /// of PM2 that was not made, nothing can: it would be refused.
    pub(crate) fn of_app(
        base: &str,
        server: &ServerId,
        target: &Target,
        homes: &Homes,
        instances: &[&Process],
        may: &[Action],
    ) -> Vec<Self> {
        let any = |is: &dyn Fn(&Process) -> bool| instances.iter().any(|process| is(process));
        let off = |process: &Process| {
            matches!(process.status, Status::Stopped | Status::Errored | Status::OneLaunch)
        };
        // A slot's process comes and goes with its slot.
        let slot = any(&|process| process.slot.is_some());
        let useful = |action: &Action| match action {
            Action::Start => any(&off),
            Action::Stop => !slot && any(&|process| !off(process)),
            Action::Delete | Action::Scale | Action::Env => !slot,
            Action::Reload => any(&|process| process.exec_mode.starts_with("cluster")),
            Action::Reset => any(&|process| process.restarts.total() > 0),
            Action::Deploy | Action::Rollback => false,
            _ => true,
        };
        if instances.is_empty() || homes.is_open() {
            return Vec::new();
        }
        let order = [
            Action::Start,
            Action::Restart,
            Action::Reload,
            Action::Stop,
            Action::Scale,
            Action::Env,
            Action::Signal,
            Action::Trigger,
            Action::Reset,
            Action::Flush,
            Action::Delete,
        ];
        let wanted = order.into_iter().filter(|action| may.contains(action)).filter(useful);
        wanted
            .filter_map(|action| Self::new(base, server, target, action, homes.chosen()))
            .collect()
    }

    /// What can be done to a slot as it is now, of what the visitor may.
    pub(crate) fn of_slot(base: &str, server: &ServerId, slot: &Slot, may: &[Action]) -> Vec<Self> {
        let target = Target::Slot(slot.slot.clone());
        let deployed = slot.kind == SlotType::Deployed;
        [Action::Deploy, Action::Restart, Action::Rollback, Action::Env, Action::Stop]
            .into_iter()
            .filter(|action| may.contains(action))
            .filter(|action| {
                deployed
                    || *action == Action::Deploy
                    || matches!(action, Action::Restart | Action::Env)
            })
            .filter_map(|action| Self::new(base, server, &target, action, None))
            .collect()
    }
}

/// Whether nothing on the page takes it back.
pub(crate) fn is_danger(action: Action) -> bool {
    matches!(action, Action::Stop | Action::Delete | Action::Flush)
}

/// What stands on the button.
pub(crate) fn word(action: Action) -> &'static str {
    match action {
        Action::Start => "Start",
        Action::Stop => "Stop",
        Action::Restart => "Restart",
        Action::Reload => "Reload",
        Action::Delete => "Delete",
        Action::Reset => "Reset PM2's counter",
        Action::Env => "Environment",
        Action::Signal => "Signal",
        Action::Trigger => "Trigger",
        Action::Scale => "Scale",
        Action::Flush => "Flush logs",
        Action::Deploy => "Deploy",
        Action::Rollback => "Roll back",
    }
}

/// What it does, for somebody who is about to do it.
pub(crate) fn meaning(action: Action, target: &Target) -> &'static str {
    match (action, target) {
        (Action::Start, _) => "Instances that are stopped or errored are started.",
        (Action::Stop, Target::Slot(_)) => {
            "The application is stopped, and the slot shows the page of a free slot again. Its \
             releases are kept."
        }
        (Action::Stop, _) => "Every instance is stopped and stays so until somebody starts it.",
        (Action::Restart, _) => {
            "Every instance is stopped and started again, one after another. It does not answer \
             in between."
        }
        (Action::Reload, _) => {
            "The instances are replaced one after another; in cluster mode the app answers all \
             the while."
        }
        (Action::Delete, _) => {
            "Every instance is stopped and taken off PM2's list. It has to be started anew on \
             the server; its history stays here."
        }
        (Action::Reset, _) => "PM2's own restart counter is set to 0; the one shown here stays.",
        (Action::Env, _) => "The app is restarted with the changed variables.",
        (Action::Signal, _) => "Every instance is sent the signal.",
        (Action::Trigger, _) => {
            "Every instance runs an action of its own, one that it registered with @pm2/io."
        }
        (Action::Scale, _) => {
            "Instances are added or taken away until there are as many. The app must run in \
             cluster mode."
        }
        (Action::Flush, _) => "The log files are emptied. What stands in them is lost.",
        (Action::Deploy, _) => {
            "The application is fetched, installed, built and tried on a spare port. Only when \
             it answers does it take the slot; what runs there runs on until then."
        }
        (Action::Rollback, _) => {
            "An earlier deployment takes the slot again. It is kept on the server: nothing is \
             fetched or built."
        }
    }
}

/// A body to begin with, where one is needed.
fn example(action: Action) -> Option<&'static str> {
    match action {
        Action::Env => Some(r#"{"env":{"LOG_LEVEL":"debug"}}"#),
        Action::Signal => Some(r#"{"signal":"SIGUSR2"}"#),
        Action::Trigger => Some(r#"{"action":"name"}"#),
        Action::Scale => Some(r#"{"instances":4}"#),
        Action::Deploy => Some(r#"{"repository":"https://…","branch":"main"}"#),
        _ => None,
    }
}

/// The line for one action, where its target has an address.
pub(crate) fn line(
    base: &str,
    server: &ServerId,
    target: &Target,
    action: Action,
    home: Option<&str>,
) -> Option<String> {
    links::shell_line(base, server, target, action, home, example(action))
}

/// Whether any of them stands behind the others.
pub(crate) fn any_rare(acts: &[Act]) -> bool {
    acts.iter().any(|act| act.rare)
}
