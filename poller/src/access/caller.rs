use std::collections::BTreeSet;

use dashboards::Viewer;
use service::problem::ProblemResponse;
use wire::ServerId;

use super::Role;
use crate::store::StoredToken;

/// Who is asking, and what they may.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Name and number of the token; `None` for somebody without one, who may read.
    token: Option<(String, i64)>,
    role: Role,
    servers: Option<BTreeSet<ServerId>>,
    /// By cookie and not by header: their browser may be acting for somebody else.
    by_session: bool,
}

/// Why somebody is not let in at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No credential was shown.
    NoCredential,
    /// Another scheme than Bearer.
    NotBearer,
    /// Unknown, expired or revoked: which of them is not said.
    BadToken,
}

impl From<Denied> for ProblemResponse {
    fn from(denied: Denied) -> Self {
        Self::unauthorized(match denied {
            Denied::NoCredential => "send a token: Authorization: Bearer …",
            Denied::NotBearer => "the Authorization header is not 'Bearer' and a token",
            Denied::BadToken => "the token is unknown, expired or revoked",
        })
    }
}

impl Caller {
    pub(super) fn anonymous() -> Self {
        Self { token: None, role: Role::Viewer, servers: None, by_session: false }
    }

    pub(super) fn with_token(token: &StoredToken, by_session: bool) -> Self {
        Self {
            token: Some((token.name.clone(), token.id)),
            role: token.role,
            servers: token.servers.clone(),
            by_session,
        }
    }

    /// Name of the token; `anonymous` without one.
    pub fn name(&self) -> &str {
        self.token.as_ref().map_or("anonymous", |(name, _)| name)
    }

    /// Number of the token.
    pub fn token(&self) -> Option<i64> {
        self.token.as_ref().map(|(_, id)| *id)
    }

    /// What they may do.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether a cookie stands for them.
    pub fn by_session(&self) -> bool {
        self.by_session
    }

    /// Whether that server exists for them.
    pub fn may_see(&self, server: &ServerId) -> bool {
        self.servers.as_ref().is_none_or(|servers| servers.contains(server))
    }

    /// The servers they are limited to.
    pub fn servers(&self) -> Option<Vec<ServerId>> {
        self.servers.as_ref().map(|servers| servers.iter().cloned().collect())
    }

    /// That they have a role.
    ///
    /// # Errors
    /// 401 for somebody without a credential, 403 for one with too small a role.
    pub fn require(&self, role: Role) -> Result<(), ProblemResponse> {
        if self.token.is_none() && role > Role::Viewer {
            return Err(Denied::NoCredential.into());
        }
        if self.role < role {
            return Err(ProblemResponse::forbidden(format!(
                "this needs the role {role}; the token {:?} has {}",
                self.name(),
                self.role
            )));
        }
        Ok(())
    }

    /// As the pages show them.
    pub fn viewer(&self) -> Viewer {
        match &self.token {
            None => Viewer::ReadOnly,
            Some((name, _)) => Viewer::SignedIn { name: name.clone(), role: self.role.to_string() },
        }
    }
}
