//! Who may do what: tokens with scopes, limits and an end.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use axum::http::HeaderMap;
use service::host::Hosts;
use service::problem::ProblemResponse;
use service::token::{TokenHash, bearer};
use wire::{SlotId, State, Time, TokenExpiry};

use crate::filter::matches;

/// What somebody without a credential is called.
const ANONYMOUS: &str = "anonymous";

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// See state, metrics, journal, logs.
    Read,
    /// Start, stop, restart, … processes.
    Control,
    /// Deploy into slots.
    Deploy,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Control => "control",
            Self::Deploy => "deploy",
        })
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "read" => Ok(Self::Read),
            "control" => Ok(Self::Control),
            "deploy" => Ok(Self::Deploy),
            _ => Err(format!("{text:?} is not a scope: read, control or deploy")),
        }
    }
}

/// The only apps and slots that a token reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Names of apps; `*` stands for any characters.
    apps: Vec<String>,
    slots: Vec<SlotId>,
}

impl Limits {
    /// None when neither is given. A list that is not given beside one that is names nothing:
    /// a token for a slot does not reach every app.
    pub fn new(apps: Option<Vec<String>>, slots: Option<Vec<SlotId>>) -> Option<Arc<Self>> {
        (apps.is_some() || slots.is_some()).then(|| {
            Arc::new(Self { apps: apps.unwrap_or_default(), slots: slots.unwrap_or_default() })
        })
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: Vec<&str>| match names.is_empty() {
            true => "none".to_owned(),
            false => names.join(", "),
        };
        let apps = list(self.apps.iter().map(String::as_str).collect());
        let slots = list(self.slots.iter().map(SlotId::as_str).collect());
        write!(f, "apps: {apps}; slots: {slots}")
    }
}

/// One of `[[tokens]]`.
#[derive(Clone, Debug)]
pub struct TokenEntry {
    /// Its name, which answers and logs show.
    pub name: String,
    /// What is kept of it.
    pub hash: TokenHash,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// What it reaches; everything, unless limited.
    pub limits: Option<Arc<Limits>>,
    /// From when on it is worth nothing.
    pub expires: Option<Time>,
}

/// Somebody who may do what was asked for, to what their limits say.
#[derive(Clone, Debug)]
pub struct Who {
    name: String,
    limits: Option<Arc<Limits>>,
}

impl Who {
    /// Reaches everything.
    pub fn unlimited(name: impl Into<String>) -> Self {
        Self { name: name.into(), limits: None }
    }

    /// The same for somebody else, who is named with them in what is recorded.
    pub fn on_behalf_of(self, other: &str) -> Self {
        Self { name: format!("{other} via {}", self.name), ..self }
    }

    /// The name that is shown.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether there was no credential.
    pub fn is_anonymous(&self) -> bool {
        self.name == ANONYMOUS
    }

    /// The name that is shown and recorded.
    pub fn into_name(self) -> String {
        self.name
    }

    /// Whether an app is reached.
    pub fn reaches_app(&self, app: &str) -> bool {
        self.limits
            .as_ref()
            .is_none_or(|limits| limits.apps.iter().any(|pattern| matches(pattern, app)))
    }

    /// Whether a slot is reached.
    pub fn reaches_slot(&self, slot: &SlotId) -> bool {
        self.limits.as_ref().is_none_or(|limits| limits.slots.contains(slot))
    }

    /// Whether a process may be seen: it is of an app or serves a slot that is reached.
    pub fn sees(&self, app: &str, slot: Option<&SlotId>) -> bool {
        self.reaches_app(app) || slot.is_some_and(|slot| self.reaches_slot(slot))
    }

    /// # Errors
    /// 403: the app is not reached.
    pub fn app(&self, app: &str) -> Result<(), ProblemResponse> {
        self.refuse_unless(self.reaches_app(app), || format!("app {app:?} is not among them"))
    }

    /// # Errors
    /// 403: the process may not be seen.
    pub fn see(&self, app: &str, slot: Option<&SlotId>) -> Result<(), ProblemResponse> {
        self.refuse_unless(self.sees(app, slot), || format!("app {app:?} is not among them"))
    }

    /// # Errors
    /// 403: the slot is not reached.
    pub fn slot(&self, slot: &SlotId) -> Result<(), ProblemResponse> {
        self.refuse_unless(self.reaches_slot(slot), || format!("slot {slot:?} is not among them"))
    }

    /// # Errors
    /// 403: `what` tells of everything, and the token is limited.
    pub fn everything(&self, what: &str) -> Result<(), ProblemResponse> {
        self.refuse_unless(self.limits.is_none(), || format!("{what} tells of all"))
    }

    fn refuse_unless(
        &self,
        allowed: bool,
        why: impl FnOnce() -> String,
    ) -> Result<(), ProblemResponse> {
        match &self.limits {
            Some(limits) if !allowed => Err(ProblemResponse::forbidden(format!(
                "token {:?} is limited ({limits}): {}",
                self.name,
                why()
            ))),
            _ => Ok(()),
        }
    }

    /// Takes out what is not reached.
    pub fn limit(&self, state: &mut State) {
        if self.limits.is_some() {
            state
                .processes
                .retain(|process| self.sees(&process.instance.name, process.slot.as_ref()));
            state.slots.retain(|slot| self.reaches_slot(&slot.slot));
            state.exporter.token_expiries.clear();
        }
    }
}

/// Decides who may do what.
#[derive(Clone, Debug)]
pub struct Access {
    tokens: Vec<TokenEntry>,
    anonymous_read: bool,
    hosts: Hosts,
}

impl Access {
    /// Without tokens and users, everybody who reaches the exporter may read (it then listens on
    /// loopback only) and nobody may change anything.
    pub fn new(
        tokens: Vec<TokenEntry>,
        has_users: bool,
        anonymous_read: bool,
        hosts: Hosts,
    ) -> Self {
        let anonymous_read = anonymous_read || (tokens.is_empty() && !has_users);
        Self { tokens, anonymous_read, hosts }
    }

    /// The tokens that were given an end.
    pub fn expiries(&self) -> Vec<TokenExpiry> {
        let expiry = |token: &TokenEntry| {
            Some(TokenExpiry { name: token.name.clone(), expires_at: token.expires? })
        };
        self.tokens.iter().filter_map(expiry).collect()
    }

    /// Who asks, if they may.
    ///
    /// # Errors
    /// 401 without a known token that is good `now`, 403 when it lacks the scope.
    pub fn check(
        &self,
        headers: &HeaderMap,
        scope: Scope,
        now: Time,
    ) -> Result<Who, ProblemResponse> {
        let Some(text) = bearer(headers) else {
            if headers.contains_key(axum::http::header::AUTHORIZATION) {
                return Err(ProblemResponse::unauthorized(
                    "Authorization: only 'Bearer <token>' is understood",
                ));
            }
            if scope == Scope::Read && self.anonymous_read {
                // A page on the web could be asking, in somebody's browser, by its own name.
                if let Some(why) = self.hosts.refusal(headers) {
                    return Err(ProblemResponse::forbidden(why));
                }
                return Ok(Who::unlimited(ANONYMOUS));
            }
            return Err(ProblemResponse::unauthorized(if self.tokens.is_empty() {
                "no [[tokens]] are configured, so nobody may change anything; \
                 see 'pm2-exporter token create'"
            } else {
                "send a token as 'Authorization: Bearer <token>'"
            }));
        };
        let hash = TokenHash::of(text);
        // Every token is compared, so that the time tells nothing of their order.
        let mut found = None;
        for token in &self.tokens {
            if token.hash.matches(&hash) {
                found = Some(token);
            }
        }
        let Some(token) = found else {
            return Err(ProblemResponse::unauthorized("the token is not known here"));
        };
        if let Some(expires) = token.expires.filter(|expires| *expires <= now) {
            return Err(ProblemResponse::unauthorized(format!(
                "token {:?} expired at {expires}",
                token.name
            )));
        }
        if !token.scopes.contains(&scope) {
            return Err(ProblemResponse::forbidden(format!(
                "token {:?} lacks the scope {scope}",
                token.name
            )));
        }
        Ok(Who { name: token.name.clone(), limits: token.limits.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(apps: Option<&[&str]>, slots: Option<&[&str]>) -> Who {
        let apps = apps.map(|apps| apps.iter().map(|app| (*app).to_owned()).collect());
        let slots = slots.map(|slots| slots.iter().map(|slot| slot.parse().unwrap()).collect());
        Who { name: "t".to_owned(), limits: Limits::new(apps, slots) }
    }

    #[test]
    fn a_limit_of_one_kind_reaches_nothing_of_the_other() {
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        let of_apps = limited(Some(&["api", "web-*"]), None);
        assert!(of_apps.reaches_app("api") && of_apps.reaches_app("web-1"));
        assert!(!of_apps.reaches_app("api2") && !of_apps.reaches_slot(&a));
        let of_slots = limited(None, Some(&["a"]));
        assert!(of_slots.reaches_slot(&a) && !of_slots.reaches_slot(&b));
        assert!(!of_slots.reaches_app("slot-a") && of_slots.sees("slot-a", Some(&a)));
        let free = limited(None, None);
        assert!(free.reaches_app("x") && free.reaches_slot(&b) && free.everything("x").is_ok());
        let nothing = limited(Some(&[]), None);
        assert!(!nothing.reaches_app("x"));
        let told = of_apps.app("db").unwrap_err();
        let detail = &told.problem().detail;
        assert!(detail.contains("api, web-*") && detail.contains("\"db\""), "{detail}");
    }

    #[test]
    fn a_token_ends_to_the_millisecond() {
        let token = service::token::Token::new(service::token::Issuer::Exporter).unwrap();
        let entry = TokenEntry {
            name: "t".to_owned(),
            hash: token.hash(),
            scopes: vec![Scope::Read],
            limits: None,
            expires: Some(Time::from_millis(1_000)),
        };
        let hosts = Hosts::new(([127, 0, 0, 1], 1).into(), Vec::new());
        let access = Access::new(vec![entry], false, false, hosts);
        let ends = access.expiries();
        assert_eq!((ends.len(), ends[0].expires_at), (1, Time::from_millis(1_000)));
        let mut headers = HeaderMap::new();
        let value = format!("Bearer {}", token.reveal()).parse().unwrap();
        headers.insert(axum::http::header::AUTHORIZATION, value);
        assert!(access.check(&headers, Scope::Read, Time::from_millis(999)).is_ok());
        let late = access.check(&headers, Scope::Read, Time::from_millis(1_000)).unwrap_err();
        assert_eq!(late.problem().status, 401);
        assert!(late.problem().detail.contains("expired at"), "{late:?}");
        let other = access.check(&headers, Scope::Control, Time::from_millis(0)).unwrap_err();
        assert_eq!(other.problem().status, 403);
    }
}
