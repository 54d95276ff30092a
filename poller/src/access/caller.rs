use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use dashboards::Viewer;
use service::problem::ProblemResponse;
use wire::{Action, ServerId, Time};

use super::{Limits, Role};
use crate::store::NewAudit;

/// Somebody with a credential, as the copy of tokens and users has them.
#[derive(Debug)]
pub(super) struct Holder {
    /// Of a token its number; of a user theirs, below zero.
    pub(super) number: i64,
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) limits: Limits,
    /// What the limits name now; `None` for every server.
    pub(super) servers: Option<Arc<BTreeSet<ServerId>>>,
    pub(super) expires_at: Option<Time>,
    /// When a user's password was set: older sessions are over.
    pub(super) since: Time,
}

impl Holder {
    pub(super) fn is_valid(&self) -> bool {
        self.expires_at.is_none_or(|end| Time::now() < end)
    }
}

/// Who is asking, and what they may.
#[derive(Clone, Debug)]
pub struct Caller {
    /// `None` for somebody without a credential, who may read.
    holder: Option<Arc<Holder>>,
    /// What the session is called, where a cookie and no header stands for them: their browser
    /// may be acting for somebody else.
    session: Option<String>,
}

/// Why somebody is not let in at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No credential was shown.
    NoCredential,
    /// Another scheme than Bearer.
    NotBearer,
    /// Unknown, expired or revoked: which of them is not said.
    BadToken,
    /// No credential was shown, and the name asked by is none of the program's own.
    UnknownHost(String),
}

impl From<Denied> for ProblemResponse {
    fn from(denied: Denied) -> Self {
        Self::unauthorized(match denied {
            Denied::UnknownHost(why) => return Self::forbidden(why),
            Denied::NoCredential => "send a token: Authorization: Bearer …",
            Denied::NotBearer => "the Authorization header is not 'Bearer' and a token",
            Denied::BadToken => "the token is unknown, expired or revoked",
        })
    }
}

impl Caller {
    pub(super) fn anonymous() -> Self {
        Self { holder: None, session: None }
    }

    pub(super) fn with(holder: Arc<Holder>, session: Option<String>) -> Self {
        Self { holder: Some(holder), session }
    }

    /// One who may do everything, in a simulation.
    #[cfg(test)]
    pub(crate) fn simulated() -> Self {
        let holder = Holder {
            number: 1,
            name: "simulated".to_owned(),
            role: Role::Admin,
            limits: Limits::default(),
            servers: None,
            expires_at: None,
            since: Time::now(),
        };
        Self::with(Arc::new(holder), None)
    }

    /// Name of the token or user; `anonymous` without one.
    pub fn name(&self) -> &str {
        self.holder.as_ref().map_or("anonymous", |holder| &holder.name)
    }

    /// Number of the token; of a user theirs, below zero.
    pub fn token(&self) -> Option<i64> {
        self.holder.as_ref().map(|holder| holder.number)
    }

    /// Number of the user, where it is one.
    pub fn user(&self) -> Option<i64> {
        self.token().filter(|number| *number < 0).map(i64::abs)
    }

    /// By what they are known, for the audit.
    pub fn via(&self) -> Option<&'static str> {
        Some(match (self.token()?, &self.session) {
            (..0, _) => "session of a user",
            (_, Some(_)) => "session of a token",
            (_, None) => "token",
        })
    }

    /// A row for the audit about something they did.
    pub fn audit(&self, address: IpAddr, act: &'static str, subject: String) -> NewAudit {
        NewAudit {
            who: self.name().to_owned(),
            via: self.via(),
            address: address.to_string(),
            act,
            outcome: "succeeded".to_owned(),
            subject,
            ..NewAudit::default()
        }
    }

    /// What they may do.
    pub fn role(&self) -> Role {
        self.holder.as_ref().map_or(Role::Viewer, |holder| holder.role)
    }

    /// Whether a cookie stands for them.
    pub fn by_session(&self) -> bool {
        self.session.is_some()
    }

    /// What their session is called.
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// Whether no server is hidden from them.
    pub fn sees_all(&self) -> bool {
        self.visible().is_none()
    }

    /// Whether that server exists for them.
    pub fn may_see(&self, server: &ServerId) -> bool {
        self.visible().is_none_or(|servers| servers.contains(server))
    }

    fn visible(&self) -> Option<&Arc<BTreeSet<ServerId>>> {
        self.holder.as_ref().and_then(|holder| holder.servers.as_ref())
    }

    /// The servers they are limited to.
    pub fn servers(&self) -> Option<Vec<ServerId>> {
        self.visible().map(|servers| servers.iter().cloned().collect())
    }

    /// What they are limited to.
    pub fn limits(&self) -> Limits {
        self.holder.as_ref().map(|holder| holder.limits.clone()).unwrap_or_default()
    }

    /// Until when their credential is good.
    pub fn expires_at(&self) -> Option<Time> {
        self.holder.as_ref().and_then(|holder| holder.expires_at)
    }

    /// Whether they may do that where their role and their servers allow it.
    pub fn may_act(&self, action: Action) -> bool {
        let allowed = |holder: &Arc<Holder>| {
            holder.limits.actions.as_ref().is_none_or(|actions| actions.contains(&action))
        };
        self.role() >= Role::Operator && self.holder.as_ref().is_some_and(allowed)
    }

    /// That they have a role.
    ///
    /// # Errors
    /// 401 for somebody without a credential, 403 for one with too small a role.
    pub fn require(&self, role: Role) -> Result<(), ProblemResponse> {
        if self.holder.is_none() && role > Role::Viewer {
            return Err(Denied::NoCredential.into());
        }
        if self.role() < role {
            return Err(ProblemResponse::forbidden(format!(
                "this needs the role {role}; {:?} has {}",
                self.name(),
                self.role()
            )));
        }
        Ok(())
    }

    /// That they may do that.
    ///
    /// # Errors
    /// 401 without a credential, 403 with too small a role or other actions.
    pub fn require_action(&self, action: Action) -> Result<(), ProblemResponse> {
        self.require(Role::Operator)?;
        if !self.may_act(action) {
            let detail = format!("{:?} is limited to other actions than {action}", self.name());
            return Err(ProblemResponse::forbidden(detail));
        }
        Ok(())
    }

    /// That they may set variables of these names: some make an interpreter run whatever one likes, and
    /// so are for those who may deploy.
    ///
    /// # Errors
    /// 403 that names the variable.
    pub fn require_variables<'a>(
        &self,
        mut names: impl Iterator<Item = &'a str>,
    ) -> Result<(), ProblemResponse> {
        match names.find(|name| wire::loads_code(name)) {
            Some(name) if !self.may_act(Action::Deploy) => {
                Err(ProblemResponse::forbidden(format!(
                    "env: {name:?} can run any code, so it is for those who may deploy, and {:?} is \
                 limited to other actions",
                    self.name()
                )))
            }
            _ => Ok(()),
        }
    }

    /// That they may do everything: who is limited to anything could lift their own limits
    /// otherwise.
    ///
    /// # Errors
    /// 401 without a credential, 403 for all but admins without limits.
    pub fn require_unlimited_admin(&self) -> Result<(), ProblemResponse> {
        self.require(Role::Admin)?;
        if self.limits().is_none() {
            return Ok(());
        }
        let detail = format!("this needs an admin without limits; {:?} has some", self.name());
        Err(ProblemResponse::forbidden(detail))
    }

    /// What they may see and do, in words that are the same for all who may the same.
    pub fn rights(&self) -> String {
        match &self.holder {
            None => "anonymous".to_owned(),
            Some(holder) if holder.limits.is_none() => holder.role.as_str().to_owned(),
            Some(holder) => format!("{} {:?} {:?}", holder.role, holder.limits, holder.servers),
        }
    }

    /// As the pages show them to everybody who may the same.
    pub fn nameless(&self) -> Viewer {
        match self.viewer() {
            Viewer::SignedIn { role, .. } => Viewer::SignedIn { name: String::new(), role },
            other => other,
        }
    }

    /// As the pages show them.
    pub fn viewer(&self) -> Viewer {
        match &self.holder {
            None => Viewer::ReadOnly,
            Some(holder) => {
                let (name, role) = (holder.name.clone(), holder.role.to_string());
                Viewer::SignedIn { name, role }
            }
        }
    }
}
