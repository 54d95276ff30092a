//! Who may do what: tokens with scopes.

use std::fmt;
use std::str::FromStr;

use axum::http::HeaderMap;
use service::problem::ProblemResponse;
use service::token::{TokenHash, bearer};

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

/// One of `[[tokens]]`.
#[derive(Clone, Debug)]
pub struct TokenEntry {
    /// Its name, which answers and logs show.
    pub name: String,
    /// What is kept of it.
    pub hash: TokenHash,
    /// What it allows.
    pub scopes: Vec<Scope>,
}

/// Decides who may do what.
#[derive(Clone, Debug)]
pub struct Access {
    tokens: Vec<TokenEntry>,
    anonymous_read: bool,
}

impl Access {
    /// Without tokens, everybody who reaches the exporter may read (it then listens on
    /// loopback only) and nobody may change anything.
    pub fn new(tokens: Vec<TokenEntry>, anonymous_read: bool) -> Self {
        let anonymous_read = anonymous_read || tokens.is_empty();
        Self { tokens, anonymous_read }
    }

    /// Name of who asks, if they may.
    ///
    /// # Errors
    /// 401 without a known token, 403 when it lacks the scope.
    pub fn check(&self, headers: &HeaderMap, scope: Scope) -> Result<String, ProblemResponse> {
        let Some(text) = bearer(headers) else {
            if headers.contains_key(axum::http::header::AUTHORIZATION) {
                return Err(ProblemResponse::unauthorized(
                    "Authorization: only 'Bearer <token>' is understood",
                ));
            }
            if scope == Scope::Read && self.anonymous_read {
                return Ok("anonymous".to_owned());
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
        if !token.scopes.contains(&scope) {
            return Err(ProblemResponse::forbidden(format!(
                "token {:?} lacks the scope {scope}",
                token.name
            )));
        }
        Ok(token.name.clone())
    }
}
