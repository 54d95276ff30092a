use std::collections::BTreeMap;

use askama::Template;
use wire::{Action, Deployment, ServerId, SlotId, Target};

use crate::act::{is_danger, line, meaning, word};
use crate::format::{age, cut};
use crate::page::{Frame, Place};
use crate::{Error, Page, links};

/// `/servers/{id}/apps/{app}/{action}` and `/servers/{id}/slots/{slot}/{action}`: asks before
/// something is done, with what that takes. The form posts to its own address; a script may show
/// the same form as a dialog.
#[derive(Clone, Debug)]
pub struct ActionPage {
    /// What every page needs.
    pub page: Page,
    /// Where.
    pub server: ServerId,
    /// To what.
    pub target: Target,
    /// What.
    pub action: Action,
    /// What the form was filled with, where it is shown again because something was wrong.
    /// Fields that may hold secrets ([`ActionPage::SECRET`]) are never filled in again.
    pub given: BTreeMap<String, String>,
    /// What was wrong with it.
    pub problem: Option<String>,
    /// The server does not answer now: it can be asked for once it does.
    pub away: bool,
    /// For a rollback: the deployments that are kept.
    pub deployments: Vec<Deployment>,
}

impl ActionPage {
    /// Fields whose text is never sent back.
    pub const SECRET: [&str; 2] = ["env", "params"];

    /// The page as HTML.
    pub fn render(&self) -> Result<String, Error> {
        let (what, back) = match &self.target {
            Target::App(app) => (app.to_string(), links::app(&self.server, app)),
            Target::Slot(slot) => {
                (format!("slot {slot}"), Some(links::slot(&self.server, slot.as_str())))
            }
        };
        let verb = match self.action {
            Action::Env => "Change the environment of",
            Action::Signal => "Send a signal to",
            Action::Trigger => "Trigger an action of",
            Action::Flush => "Flush the logs of",
            Action::Reset => "Reset PM2's counter of",
            Action::Deploy => "Deploy to",
            other => word(other),
        };
        let now = self.page.now;
        let deployment = |it: &Deployment| {
            let commit: String = it.commit.iter().flat_map(|all| all.chars().take(7)).collect();
            let from = cut(&it.repository, 60);
            (it.id.to_string(), format!("{} {commit} {from}", age(now, it.requested_at)))
        };
        let kept = self.deployments.iter().filter(|it| it.kept && !it.current).map(deployment);
        let deployments: Vec<_> =
            [(String::new(), "the former one".to_owned())].into_iter().chain(kept).collect();
        View {
            frame: Frame::new(&self.page, &format!("{verb} {what}?"), Place::Elsewhere, false),
            meaning: meaning(self.action, &self.target),
            button: match self.action {
                Action::Env => "Change and restart",
                Action::Signal => "Send",
                other => word(other),
            },
            danger: is_danger(self.action),
            fields: fields(self.action, &self.target, deployments, self.away),
            here: links::act(&self.server, &self.target, self.action)
                .unwrap_or_else(|| "/".to_owned()),
            back: back.unwrap_or_else(|| format!("/servers/{}", self.server)),
            given_rarely: RARE.iter().any(|name| !self.given(name).is_empty()),
            line: line(&self.page.base, &self.server, &self.target, self.action),
            verb,
            what,
            it: self,
        }
        .render()
    }

    fn given(&self, name: &str) -> &str {
        let shown = !Self::SECRET.contains(&name);
        self.given.get(name).filter(|_| shown).map_or("", String::as_str)
    }
}

#[derive(Template)]
#[template(path = "action.html")]
struct View<'a> {
    frame: Frame<'a>,
    it: &'a ActionPage,
    verb: &'static str,
    what: String,
    meaning: &'static str,
    button: &'static str,
    danger: bool,
    fields: Vec<Field>,
    /// A field that is folded away was filled in.
    given_rarely: bool,
    here: String,
    back: String,
    line: Option<String>,
}

enum Kind {
    Text,
    Number,
    Check,
    Area,
    Select(Vec<(String, String)>),
}

/// A field of the form.
struct Field {
    kind: Kind,
    name: &'static str,
    label: &'static str,
    hint: &'static str,
    required: bool,
    /// Wanted now and then only: it is folded away.
    rare: bool,
}

/// How long a command is kept for a server that is away.
const QUEUES: [(&str, &str); 4] = [
    ("10m", "do it as soon as it answers, within 10 minutes"),
    ("1h", "… within an hour"),
    ("24h", "… within a day"),
    ("", "try now, and give up"),
];

/// Fields of a deployment that are folded away.
const RARE: [&str; 6] = ["commit", "subdir", "install", "build", "start", "health_path"];

const SIGNALS: [&str; 9] = [
    "SIGUSR2", "SIGUSR1", "SIGHUP", "SIGINT", "SIGTERM", "SIGQUIT", "SIGCONT", "SIGSTOP", "SIGKILL",
];

fn fields(
    action: Action,
    target: &Target,
    deployments: Vec<(String, String)>,
    away: bool,
) -> Vec<Field> {
    let field = |kind, name, label, hint, required| Field {
        kind,
        name,
        label,
        hint,
        required,
        rare: false,
    };
    let text = |name, label, hint| field(Kind::Text, name, label, hint, false);
    let rare = |name, label, hint| Field { rare: true, ..text(name, label, hint) };
    let env = "A line each: NAME=value. Values go to the server and are never shown again.";
    let mut all = match action {
        Action::Scale => vec![field(Kind::Number, "instances", "Instances", "", true)],
        Action::Env => vec![field(Kind::Area, "env", "Variables", env, true)],
        Action::Signal => {
            let signals = SIGNALS.map(|signal| (signal.to_owned(), signal.to_owned()));
            vec![field(Kind::Select(signals.into()), "signal", "Signal", "", true)]
        }
        Action::Trigger => vec![
            field(Kind::Text, "action", "Action", "Its name, as the app registered it.", true),
            text("params", "Parameter", "Text or JSON; never shown again."),
        ],
        Action::Deploy => vec![
            field(
                Kind::Text,
                "repository",
                "Repository",
                "https://… or git@host:…, as the server may fetch from.",
                true,
            ),
            text("branch", "Branch or tag", "The repository's own choice unless given."),
            field(Kind::Area, "env", "Variables", env, false),
            rare("commit", "Commit", "All of its digits; the newest unless given."),
            rare("subdir", "Folder", "Of the application within the repository."),
            rare("install", "Install command", "Found by the lock file unless given."),
            rare("build", "Build command", "The package's build script unless given."),
            rare("start", "Start command", "The package's start script or main unless given."),
            rare("health_path", "Health path", "/health, then / unless given."),
        ],
        Action::Rollback => {
            vec![field(Kind::Select(deployments), "deployment", "To which deployment", "", false)]
        }
        _ => Vec::new(),
    };
    if away && !matches!(action, Action::Env | Action::Trigger) {
        let choices = QUEUES.map(|(value, text)| (value.to_owned(), text.to_owned()));
        all.push(field(Kind::Select(choices.into()), "queue", "When", "", false));
    }
    match target {
        Target::Slot(_) => all.push(field(
            Kind::Check,
            "reclaim",
            "End whatever else holds the slot's port",
            "",
            false,
        )),
        Target::App(_) if !matches!(action, Action::Signal | Action::Trigger | Action::Flush) => {
            all.push(field(
                Kind::Check,
                "save",
                "Save PM2's list afterwards, for the next boot",
                "",
                false,
            ));
        }
        Target::App(_) => {}
    }
    all
}

/// The address of a slot's page, for who redirects there.
pub fn slot_path(server: &ServerId, slot: &SlotId) -> String {
    links::slot(server, slot.as_str())
}

/// The address of an app's page; the server's where the app has none.
pub fn app_path(server: &ServerId, app: &wire::AppName) -> String {
    links::app(server, app).unwrap_or_else(|| format!("/servers/{server}"))
}

fn is_usual(field: &&Field) -> bool {
    !field.rare
}

fn is_set_rarely(field: &&Field) -> bool {
    field.rare
}

fn is_rare(field: &Field) -> bool {
    field.rare
}
