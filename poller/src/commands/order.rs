//! What an action takes beside its target. Values may be secrets: they go to the exporter and
//! nowhere else. What is kept of them is a line of names, and a hash that tells a repeated
//! request from another one.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use reqwest::Url;
use serde_json::Value;
use service::body::parse;
use service::problem::ProblemResponse;
use sha2::{Digest, Sha256};
use wire::{
    Action, CommandId, CommandRequest, DeployRequest, EnvRequest, SlotRequest, SmolStr, Target,
};

/// Longest line kept of what a command takes, in characters.
const MAX_SUMMARY: usize = 500;
/// The longest that an exporter may let a deployment's fetching, installing and building take.
const MOST: Duration = Duration::from_secs(2 * 3600);
/// How long a deployment may stand in line, be tried and be put in place beside that.
const BESIDE: Duration = Duration::from_secs(600);
/// Values shorter than this are too common to be looked for.
const SECRET: usize = 4;

/// What an action takes.
#[derive(Clone, Default, PartialEq)]
pub struct Order {
    arguments: BTreeMap<String, String>,
    pm2_home: Option<SmolStr>,
    save: bool,
    deploy: Option<Box<DeployRequest>>,
    env: Option<EnvRequest>,
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order")
            .field("arguments", &self.arguments.keys())
            .field("pm2_home", &self.pm2_home)
            .field("save", &self.save)
            .field("deploy", &self.deploy)
            .field("env", &self.env)
            .finish()
    }
}

impl Order {
    /// Reads a body: `{"env":{…}}`, `{"signal":"SIGUSR2"}`, `{"action":"x","params":…}`,
    /// `{"instances":4}`; for slots a [`DeployRequest`], an [`EnvRequest`] or
    /// a [`SlotRequest`]; otherwise nothing.
    ///
    /// # Errors
    /// It has another form. Nothing of it is quoted.
    pub fn read(
        action: Action,
        target: &Target,
        body: &[u8],
        save: bool,
    ) -> Result<Self, ProblemResponse> {
        if let Target::Slot(_) = target {
            return Self::of_slot(action, body);
        }
        let arguments = service::body::arguments(action, body)?;
        Ok(Self { arguments, save, ..Self::default() })
    }

    /// The same for the PM2 of one directory, where the exporter watches several.
    pub fn in_home(self, pm2_home: Option<String>) -> Self {
        Self { pm2_home: pm2_home.map(Into::into), ..self }
    }

    /// The PM2 that is meant.
    pub(super) fn pm2_home(&self) -> Option<&SmolStr> {
        self.pm2_home.as_ref()
    }

    fn of_slot(action: Action, body: &[u8]) -> Result<Self, ProblemResponse> {
        if action == Action::Deploy {
            let deploy = parse::<DeployRequest>(body, "{\"repository\":\"https://…\"}")?;
            return Ok(Self { deploy: Some(Box::new(deploy)), ..Self::default() });
        }
        if action == Action::Env {
            let env = parse::<EnvRequest>(body, "{\"env\":{\"NAME\":\"value\",\"OLD\":null}}")?;
            return Ok(Self { env: Some(env), ..Self::default() });
        }
        let request: SlotRequest = match action {
            Action::Rollback => parse(body, "{\"deployment\":\"…\",\"reclaim\":true}, or none")?,
            _ => parse(body, "{\"reclaim\":true}, or none")?,
        };
        let mut arguments = BTreeMap::new();
        if request.reclaim {
            arguments.insert("reclaim".to_owned(), "true".to_owned());
        }
        if let Some(deployment) = request.deployment {
            if action != Action::Rollback {
                let detail = format!("body: deployment: {action} takes none, only rollback does");
                return Err(ProblemResponse::bad_request(detail));
            }
            arguments.insert("deployment".to_owned(), deployment.to_string());
        }
        Ok(Self { arguments, ..Self::default() })
    }

    /// What the exporter is sent.
    pub(super) fn body(&self, target: &Target, action: Action) -> anyhow::Result<Vec<u8>> {
        Ok(serde_json::to_vec(&CommandRequest {
            target: target.clone(),
            action,
            pm2_home: self.pm2_home.clone(),
            arguments: self.arguments.clone(),
            save: self.save,
            deploy: self.deploy.clone(),
            env: self.env.clone(),
        })?)
    }

    /// Names of the variables that it sets, outside of a deployment.
    pub(super) fn variables(&self, action: Action) -> impl Iterator<Item = &str> {
        let of_slot = self.env.iter().flat_map(|request| request.env.keys());
        let of_app = self.arguments.keys().filter(move |_| action == Action::Env);
        of_slot.chain(of_app).map(String::as_str)
    }

    /// A line of what may be kept: names, and values that are never secret.
    pub(super) fn summary(&self, action: Action) -> Option<String> {
        fn names<V>(all: &BTreeMap<String, V>) -> String {
            all.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
        }
        let value = |name: &str| self.arguments.get(name).map(|value| format!("{name}: {value}"));
        let mut parts = match action {
            Action::Env => {
                let own = self.env.as_ref().map(|request| names(&request.env));
                vec![format!("env: {}", own.unwrap_or_else(|| names(&self.arguments)))]
            }
            Action::Signal => Vec::from_iter(value("signal")),
            Action::Trigger => Vec::from_iter(value("action")),
            Action::Scale => Vec::from_iter(value("instances")),
            _ => ["deployment", "reclaim"].into_iter().filter_map(value).collect(),
        };
        if let Some(deploy) = &self.deploy {
            let field = |name: &str, value: &Option<String>| {
                value.as_ref().map(|value| format!("{name}: {value}"))
            };
            let repository = without_credentials(&deploy.repository);
            parts.extend(field("repository", &repository));
            parts.extend(field("branch", &deploy.branch));
            parts.extend(field("commit", &deploy.commit));
            parts.extend(field("subdir", &deploy.subdir));
            if !deploy.env.is_empty() {
                parts.push(format!("env: {}", names(&deploy.env)));
            }
            if deploy.reclaim {
                parts.push("reclaim: true".to_owned());
            }
        }
        parts.extend(self.pm2_home.iter().map(|home| format!("pm2_home: {home}")));
        if self.save {
            parts.push("save: true".to_owned());
        }
        let line = one_line(&parts.join("; "));
        (!parts.is_empty()).then(|| line.chars().take(MAX_SUMMARY).collect())
    }

    /// Tells this body from others of the same command. The id keeps equal bodies of two
    /// commands from looking alike.
    pub(super) fn hash(body: &[u8], id: &CommandId) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(id.as_bytes());
        hash.update([0]);
        hash.update(body);
        hash.finalize().into()
    }

    /// Whether it holds nothing that may be secret, so that it can be kept on the disk until its
    /// server is back.
    pub(super) fn may_be_kept(&self, action: Action) -> bool {
        let of_app = match action {
            Action::Env => false,
            Action::Trigger => !self.arguments.contains_key("params"),
            _ => true,
        };
        let deploy = self.deploy.as_ref().is_none_or(|deploy| {
            // Lines for a shell are where people write tokens.
            let lines = [&deploy.install, &deploy.build, &deploy.start];
            let plain = Url::parse(&deploy.repository).is_err()
                || without_credentials(&deploy.repository).as_ref() == Some(&deploy.repository);
            plain && deploy.env.is_empty() && lines.iter().all(|line| line.is_none())
        });
        of_app && deploy && self.env.is_none()
    }

    /// How long it is followed, where other commands have `timeout`.
    pub(super) fn timeout(&self, action: Action, timeout: Duration) -> Duration {
        match (action, &self.deploy) {
            (_, Some(deploy)) => {
                let asked = deploy.timeout.as_deref();
                let asked = asked.and_then(|text| service::quantity::duration(text).ok());
                timeout.max(asked.unwrap_or(MOST).min(MOST) + BESIDE)
            }
            // What is put in place is waited for until it is well, or what was there is again.
            (Action::Rollback, _) => timeout.max(BESIDE),
            _ if self.env.is_some() => timeout.max(BESIDE),
            _ => timeout,
        }
    }

    /// What a server said, without values that it was sent and should not repeat.
    pub(super) fn scrub(&self, action: Action, text: &str) -> String {
        let mut secrets: Vec<&str> = match action {
            Action::Env => {
                let own = self.env.iter().flat_map(|request| request.env.values().flatten());
                self.arguments.values().chain(own).map(String::as_str).collect()
            }
            Action::Trigger => {
                self.arguments.get("params").map(String::as_str).into_iter().collect()
            }
            _ => Vec::new(),
        };
        let mut password = None;
        if let Some(deploy) = &self.deploy {
            secrets.extend(deploy.env.values().map(String::as_str));
            if without_credentials(&deploy.repository).as_ref() != Some(&deploy.repository) {
                secrets.push(&deploy.repository);
                let url = Url::parse(&deploy.repository).ok();
                password = url.and_then(|url| url.password().map(str::to_owned));
            }
        }
        secrets.extend(password.as_deref());
        // As they are, as one line, and as JSON has them.
        let mut forms = Vec::new();
        for secret in secrets.into_iter().filter(|secret| secret.len() >= SECRET) {
            forms.push(secret.to_owned());
            forms.push(one_line(secret));
            let json = Value::from(secret).to_string();
            forms.push(json.trim_matches('"').to_owned());
        }
        // The longest first: one may be a part of another.
        forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
        forms.iter().fold(text.to_owned(), |text, form| text.replace(form.as_str(), "…"))
    }
}

/// Whether what an action takes may be secret, so that what its server says of it may repeat that.
pub(super) fn may_be_secret(action: Action) -> bool {
    matches!(action, Action::Env | Action::Trigger | Action::Deploy)
}

/// Without line breaks and other control characters.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Where a repository is, if that can be told apart from what opens it.
fn without_credentials(repository: &str) -> Option<String> {
    if let Ok(mut url) = Url::parse(repository) {
        // A path alone is not told from a credential.
        url.set_password(None).ok()?;
        url.set_username("").ok()?;
        url.set_query(None);
        url.set_fragment(None);
        return Some(url.into());
    }
    // git@host:path
    let (_, place) = repository.rsplit_once('@')?;
    place.contains(':').then(|| place.to_owned())
}

#[cfg(test)]
mod tests;
