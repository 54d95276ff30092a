use std::collections::BTreeMap;

use askama::Template;
use wire::{Action, CommandId, Deployment, ServerId, Target};

use crate::act::{is_danger, line, meaning, word};
use crate::format::{age, cut};
use crate::homes::HomeLink;
use crate::links::{self, query};
use crate::page::{Frame, Place};
use crate::{Error, Homes, Page};

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
    /// In which PM2: the page asks for that first where it has to be said and was not.
    pub homes: Homes,
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
        let what = match &self.target {
            Target::App(app) => app.to_string(),
            Target::Slot(slot) => format!("slot {slot}"),
        };
        let (home, here) =
            (self.homes.chosen(), links::act(&self.server, &self.target, self.action, None));
        let back = links::place(&self.server, &self.target);
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
            homes: self.homes.links(here.as_deref().unwrap_or("/"), &[]),
            here: here.map_or_else(|| "/".to_owned(), |here| query(&here, &[self.homes.field()])),
            back: back.map_or_else(
                || format!("/servers/{}", self.server),
                |back| query(&back, &[self.homes.field()]),
            ),
            given_rarely: RARE.iter().any(|name| !self.given(name).is_empty()),
            line: line(&self.page.base, &self.server, &self.target, self.action, home),
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
    homes: Vec<HomeLink>,
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

/// The address of the page that shows what became of a command: its target's own, the server's
/// where that has none.
pub fn outcome_path(server: &ServerId, target: &Target, homes: &Homes, id: &CommandId) -> String {
    let place = links::place(server, target).unwrap_or_else(|| format!("/servers/{server}"));
    query(&place, &[homes.field(), ("done", id.as_str())])
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
