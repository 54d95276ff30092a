//! Who may do what. The tokens are in the database; this keeps a copy of them, at most a
//! second old, so that a request costs no query. Sessions of the page live here only.

mod caller;
mod role;
mod same_origin;
mod session;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axum::http::HeaderMap;
use service::token::{Issuer, Token, TokenHash, bearer};
use tokio::time::{Duration, Instant};
use wire::Time;

pub use caller::{Caller, Denied};
pub use role::Role;
pub use same_origin::{from_elsewhere, same_origin};
use session::Sessions;
pub use session::{SESSION_HOURS, cookie_of, session_cookie};

use crate::store::{Store, StoreError, StoredToken};

/// A token that nobody knows makes the copy be read again, but no more often than this.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The copy of the tokens.
#[derive(Debug, Default)]
struct Tokens {
    by_hash: HashMap<[u8; 32], Arc<StoredToken>>,
    by_id: HashMap<i64, Arc<StoredToken>>,
}

/// Decides.
#[derive(Debug)]
pub struct Access {
    store: Store,
    tokens: RwLock<Arc<Tokens>>,
    sessions: Mutex<Sessions>,
    /// Nobody beyond this machine can reach the program.
    loopback: bool,
    anonymous_read: RwLock<bool>,
    looked: tokio::sync::Mutex<Instant>,
}

impl Access {
    /// With the tokens that the store has now.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn new(
        store: Store,
        loopback: bool,
        anonymous_read: bool,
    ) -> Result<Self, StoreError> {
        let access = Self {
            store,
            tokens: RwLock::default(),
            sessions: Mutex::default(),
            loopback,
            anonymous_read: RwLock::new(anonymous_read),
            looked: tokio::sync::Mutex::new(Instant::now()),
        };
        access.refresh().await?;
        Ok(access)
    }

    /// Changes whether anybody may read.
    pub fn set_anonymous_read(&self, anonymous_read: bool) {
        *self.anonymous_read.write().unwrap_or_else(PoisonError::into_inner) = anonymous_read;
    }

    /// Reads the tokens again.
    ///
    /// # Errors
    /// They cannot be read; the former copy stays.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let mut tokens = Tokens::default();
        for token in self.store.tokens().await? {
            let token = Arc::new(token);
            tokens.by_hash.insert(*token.hash.as_bytes(), Arc::clone(&token));
            tokens.by_id.insert(token.id, token);
        }
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tokens);
        Ok(())
    }

    fn tokens(&self) -> Arc<Tokens> {
        Arc::clone(&self.tokens.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether people without a credential may read: they may where it is set, and on a fresh
    /// installation that only this machine reaches. Once there was a token, it is over with
    /// the latter, even when the token is revoked.
    fn open_to_read(&self) -> bool {
        *self.anonymous_read.read().unwrap_or_else(PoisonError::into_inner)
            || (self.loopback && self.tokens().by_id.is_empty())
    }

    /// Who is asking.
    ///
    /// # Errors
    /// A credential was shown that is worth nothing, or none where one is needed.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Denied> {
        if headers.contains_key(axum::http::header::AUTHORIZATION) {
            let Some(text) = bearer(headers) else { return Err(Denied::NotBearer) };
            let token = self.by_text(text).await.ok_or(Denied::BadToken)?;
            return Ok(Caller::with_token(&token, false));
        }
        if let Some(cookie) = cookie_of(headers)
            && let Some(token) = self.by_session(cookie)
        {
            return Ok(Caller::with_token(&token, true));
        }
        if self.open_to_read() { Ok(Caller::anonymous()) } else { Err(Denied::NoCredential) }
    }

    /// The valid token of that text.
    async fn by_text(&self, text: &str) -> Option<Arc<StoredToken>> {
        // The checksum sorts out what never was a token before anything is looked up.
        if !Token::is_well_formed(text, Issuer::Poller) {
            return None;
        }
        let hash = TokenHash::of(text);
        if let Some(token) = self.by_hash(&hash) {
            return Some(token);
        }
        // It may have been made a moment ago, at the command line. All who ask meanwhile share
        // one look.
        let asked = Instant::now();
        let mut looked = self.looked.lock().await;
        if *looked < asked {
            tokio::time::sleep_until(*looked + LOOK_AGAIN).await;
            *looked = Instant::now();
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, "the tokens cannot be read");
            }
        }
        drop(looked);
        self.by_hash(&hash)
    }

    fn by_hash(&self, hash: &TokenHash) -> Option<Arc<StoredToken>> {
        let tokens = self.tokens();
        let token = tokens.by_hash.get(hash.as_bytes())?;
        (token.hash.matches(hash) && token.is_valid(Time::now())).then(|| Arc::clone(token))
    }

    fn by_session(&self, cookie: &str) -> Option<Arc<StoredToken>> {
        let id = self.sessions.lock().unwrap_or_else(PoisonError::into_inner).token(cookie)?;
        let tokens = self.tokens();
        let token = tokens.by_id.get(&id)?;
        token.is_valid(Time::now()).then(|| Arc::clone(token))
    }

    /// Begins a session for the holder of a token and gives the cookie's value; `None` when
    /// the token is worth nothing.
    ///
    /// # Errors
    /// The operating system gives no random numbers.
    pub async fn sign_in(&self, token: &str) -> Result<Option<String>, getrandom::Error> {
        let Some(token) = self.by_text(token.trim()).await else { return Ok(None) };
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.begin(token.id).map(Some)
    }

    /// Ends the session that the cookie names, if it is one.
    pub fn sign_out(&self, headers: &HeaderMap) {
        if let Some(cookie) = cookie_of(headers) {
            self.sessions.lock().unwrap_or_else(PoisonError::into_inner).end(cookie);
        }
    }
}
