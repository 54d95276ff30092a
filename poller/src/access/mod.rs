//! Who may do what. Tokens and users are in the database; this keeps a copy of them, at most a
//! second old, so that a request costs no query. Sessions of the page live here only.

mod caller;
mod first;
mod given;
mod limits;
mod password;
mod refusals;
mod role;
mod same_origin;
mod session;
mod sign_in;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use axum::http::HeaderMap;
use service::host::Hosts;
use service::limits::Allowance;
use service::token::{Issuer, Token, TokenHash, bearer};
use tokio::time::{Duration, Instant};
use wire::{Action, ServerId, Time};

use caller::Holder;
pub use caller::{Caller, Denied};
pub use first::tell_first;
pub use given::{described, end_of, until};
pub use limits::Limits;
pub use password::{acceptable, hash};
pub use role::Role;
pub use same_origin::{from_elsewhere, same_origin};
pub use session::{SESSION_HOURS, Session, cookie_of, session_cookie};
pub use sign_in::SignIn;

use crate::fleet::Fleet;
use crate::store::{NewAudit, Store, StoreError, StoredToken, StoredUser};
use first::First;
use password::Passwords;
use refusals::Refusals;
use session::Sessions;

/// A token that nobody knows makes the copy be read again, but no more often than this.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// When tokens and users were used last is written so often.
const WRITE_USE: Duration = Duration::from_secs(60);

/// Most tokens whose end is told.
pub const MAX_EXPIRIES: usize = 100;
const WEEK: i64 = 7 * 86_400_000;

/// The copy of tokens and users.
#[derive(Debug, Default)]
struct Known {
    by_hash: HashMap<[u8; 32], (TokenHash, Arc<Holder>)>,
    by_number: HashMap<i64, Arc<Holder>>,
    /// Number, and the hash of the password.
    users: HashMap<String, (i64, String)>,
    /// Whether there ever was a token, or there is a user.
    any: bool,
}

/// When each was used last, by number, and which of that is not written yet.
#[derive(Debug)]
struct Used {
    at: HashMap<i64, (Time, bool)>,
    written: Instant,
}

/// Decides.
#[derive(Debug)]
pub struct Access {
    store: Store,
    fleet: Arc<Fleet>,
    known: RwLock<Arc<Known>>,
    sessions: Mutex<Sessions>,
    refusals: Mutex<Refusals>,
    used: Mutex<Used>,
    passwords: Passwords,
    bad_logins: Allowance,
    first: Mutex<Option<First>>,
    /// Nobody beyond this machine can reach the program.
    loopback: bool,
    anonymous_read: RwLock<bool>,
    hosts: Hosts,
    looked: tokio::sync::Mutex<Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Access {
    /// With the tokens and users that the store has now.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn new(
        store: Store,
        fleet: Arc<Fleet>,
        loopback: bool,
        anonymous_read: bool,
        hosts: Hosts,
    ) -> Result<Self, StoreError> {
        let now = Instant::now();
        let access = Self {
            store,
            fleet,
            known: RwLock::default(),
            sessions: Mutex::default(),
            refusals: Mutex::default(),
            used: Mutex::new(Used { at: HashMap::new(), written: now }),
            passwords: Passwords::default(),
            bad_logins: service::limits::bad_logins(),
            first: Mutex::default(),
            loopback,
            anonymous_read: RwLock::new(anonymous_read),
            hosts,
            looked: tokio::sync::Mutex::new(now),
        };
        access.refresh().await?;
        Ok(access)
    }

    /// Changes whether anybody may read.
    pub fn set_anonymous_read(&self, anonymous_read: bool) {
        *self.anonymous_read.write().unwrap_or_else(PoisonError::into_inner) = anonymous_read;
    }

    /// Reads tokens and users again.
    ///
    /// # Errors
    /// They cannot be read; the former copy stays.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let (tokens, users) = (self.store.tokens().await?, self.store.users().await?);
        let mut known = Known { any: !tokens.is_empty() || !users.is_empty(), ..Known::default() };
        for token in tokens.into_iter().filter(|token| token.revoked_at.is_none()) {
            let hash = token.hash;
            let holder = Arc::new(self.holder_of_token(token));
            known.by_number.insert(holder.number, Arc::clone(&holder));
            known.by_hash.insert(*hash.as_bytes(), (hash, holder));
        }
        for user in users {
            let number = -user.id;
            known.users.insert(user.name.clone(), (number, user.password.clone()));
            known.by_number.insert(number, Arc::new(self.holder_of_user(user)));
        }
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
        Ok(())
    }

    fn holder_of_token(&self, token: StoredToken) -> Holder {
        Holder {
            number: token.id,
            name: token.name,
            role: token.role,
            servers: token.limits.servers_of(&self.fleet),
            limits: token.limits,
            expires_at: token.expires_at,
            since: token.created_at,
        }
    }

    fn holder_of_user(&self, user: StoredUser) -> Holder {
        Holder {
            number: -user.id,
            name: user.name,
            role: user.role,
            servers: user.limits.servers_of(&self.fleet),
            limits: user.limits,
            expires_at: user.expires_at,
            since: user.password_at,
        }
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether people without a credential may read: they may where it is set, and on a fresh
    /// installation that only this machine reaches. Once there was a token or a user, it is over
    /// with the latter, even when the token is revoked.
    fn open_to_read(&self) -> bool {
        *self.anonymous_read.read().unwrap_or_else(PoisonError::into_inner)
            || (self.loopback && !self.known().any)
    }

    /// Who is asking.
    ///
    /// # Errors
    /// A credential was shown that is worth nothing, or none where one is needed.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Denied> {
        if headers.contains_key(axum::http::header::AUTHORIZATION) {
            let Some(text) = bearer(headers) else { return Err(Denied::NotBearer) };
            let holder = self.by_text(text).await.ok_or(Denied::BadToken)?;
            self.is_used(&holder);
            return Ok(Caller::with(holder, None));
        }
        if let Some(cookie) = cookie_of(headers)
            && let Some((holder, session)) = self.by_session(cookie)
        {
            self.is_used(&holder);
            return Ok(Caller::with(holder, Some(session)));
        }
        if !self.open_to_read() {
            return Err(Denied::NoCredential);
        }
        // A page on the web could be asking, in somebody's browser, by its own name.
        match self.hosts.refusal(headers) {
            Some(why) => Err(Denied::UnknownHost(why)),
            None => Ok(Caller::anonymous()),
        }
    }

    /// The holder of the valid token of that text.
    async fn by_text(&self, text: &str) -> Option<Arc<Holder>> {
        // The checksum sorts out what never was a token before anything is looked up.
        if !Token::is_well_formed(text, Issuer::Poller) {
            return None;
        }
        let hash = TokenHash::of(text);
        if let Some(holder) = self.by_hash(&hash) {
            return Some(holder);
        }
        self.look_again().await;
        self.by_hash(&hash)
    }

    /// What is not known may have been made a moment ago, at the command line. All who ask
    /// meanwhile share one look.
    async fn look_again(&self) {
        let asked = Instant::now();
        let mut looked = self.looked.lock().await;
        if *looked < asked {
            tokio::time::sleep_until(*looked + LOOK_AGAIN).await;
            *looked = Instant::now();
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, "tokens and users cannot be read");
            }
        }
    }

    /// When tokens end being good, the soonest first: at most [`MAX_EXPIRIES`]. Those that were
    /// made for two weeks or less are left out, since nobody forgets these, and those that
    /// ended more than a week ago.
    pub fn expiries(&self, now: Time) -> Vec<(String, Time)> {
        let known = self.known();
        // A name can be used again once its token has expired: the newest counts. Users have
        // numbers below zero.
        let mut newest: BTreeMap<&str, &Holder> = BTreeMap::new();
        for holder in known.by_number.values().filter(|holder| holder.number > 0) {
            let found = newest.entry(&holder.name).or_insert(holder);
            if found.number < holder.number {
                *found = holder;
            }
        }
        let mut all: Vec<(String, Time)> = newest
            .into_values()
            .filter_map(|holder| Some((holder, holder.expires_at?)))
            .filter(|(holder, end)| end.millis_since(holder.since) > 2 * WEEK)
            .filter(|(_, end)| now.millis_since(*end) < WEEK)
            .map(|(holder, end)| (holder.name.clone(), end))
            .collect();
        all.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        all.truncate(MAX_EXPIRIES);
        all
    }

    fn by_hash(&self, hash: &TokenHash) -> Option<Arc<Holder>> {
        let known = self.known();
        let (kept, holder) = known.by_hash.get(hash.as_bytes())?;
        (kept.matches(hash) && holder.is_valid()).then(|| Arc::clone(holder))
    }

    fn by_session(&self, cookie: &str) -> Option<(Arc<Holder>, String)> {
        let known = self.known();
        let find = |number: i64| {
            known.by_number.get(&number).filter(|holder| holder.is_valid()).map(Arc::clone)
        };
        lock(&self.sessions).find(cookie, find)
    }

    /// Whether the holder of a token, or a user by a number below zero, may still command a
    /// server.
    pub fn may_still(&self, number: i64, server: &ServerId, action: Action) -> bool {
        let holder = self.known().by_number.get(&number).map(Arc::clone);
        holder.filter(|holder| holder.is_valid()).is_some_and(|holder| {
            let caller = Caller::with(holder, None);
            caller.may_see(server) && caller.may_act(action)
        })
    }

    /// Somebody as they are known now; `None` when what let them in does so no more. It is no use
    /// of their credential.
    pub fn again(&self, caller: &Caller) -> Option<Caller> {
        let Some(number) = caller.token() else {
            return self.open_to_read().then(Caller::anonymous);
        };
        let known = self.known();
        let holder = known.by_number.get(&number).filter(|holder| holder.is_valid())?;
        let session = caller.session().map(str::to_owned);
        let goes_on = |id: &String| lock(&self.sessions).goes_on(id, holder.since);
        session.as_ref().is_none_or(goes_on).then(|| Caller::with(Arc::clone(holder), session))
    }

    fn is_used(&self, holder: &Holder) {
        lock(&self.used).at.insert(holder.number, (Time::now(), true));
    }

    /// When a token, or a user by a number below zero, was used last, as far as this process
    /// knows.
    pub fn last_used(&self, number: i64) -> Option<Time> {
        lock(&self.used).at.get(&number).map(|(time, _)| *time)
    }

    /// Writes when tokens and users were used last, when it is time.
    pub async fn write_use(&self, ending: bool) {
        let fresh: Vec<(i64, Time)> = {
            let mut used = lock(&self.used);
            if !ending && used.written.elapsed() < WRITE_USE {
                return;
            }
            used.written = Instant::now();
            let known = self.known();
            used.at.retain(|number, _| known.by_number.contains_key(number));
            let fresh = used.at.iter_mut().filter(|(_, (_, fresh))| *fresh);
            fresh
                .map(|(number, (time, fresh))| {
                    *fresh = false;
                    (*number, *time)
                })
                .collect()
        };
        if !fresh.is_empty()
            && let Err(error) = self.store.used(fresh).await
        {
            tracing::debug!(%error, "the last use of tokens was not stored");
        }
    }

    /// Sessions that `of` may see: their own, and an admin's everybody's.
    pub fn sessions(&self, of: &Caller) -> Vec<Session> {
        let all = of.require_unlimited_admin().is_ok();
        let mut sessions = lock(&self.sessions).list();
        sessions.retain(|session| all || Some(session.holder) == of.token());
        sessions
    }

    /// Ends the session of that name, when `by` may see it.
    pub fn end_session(&self, by: &Caller, id: &str) -> Option<Session> {
        let found = self.sessions(by).into_iter().find(|session| session.id == id)?;
        lock(&self.sessions).end_where(|session| session.id == id);
        Some(found)
    }

    /// Ends the session that the cookie names, if it is one.
    pub fn sign_out(&self, headers: &HeaderMap) -> Option<Session> {
        lock(&self.sessions).end(cookie_of(headers)?)
    }

    /// Whether a refusal has a row of its own in the audit, or is counted among others.
    pub fn refusal_has_row(&self, address: IpAddr) -> bool {
        lock(&self.refusals).has_row(address)
    }

    /// Puts on record that somebody was refused something, or counts it.
    pub async fn refused(
        &self,
        caller: Option<&Caller>,
        address: IpAddr,
        subject: String,
        detail: String,
    ) {
        if !self.refusal_has_row(address) {
            return;
        }
        let row = NewAudit {
            who: caller.map_or("-", Caller::name).to_owned(),
            via: caller.and_then(Caller::via),
            address: address.to_string(),
            act: "request",
            outcome: "refused".to_owned(),
            subject,
            detail: Some(detail),
            ..NewAudit::default()
        };
        self.record(row).await;
    }

    /// Writes how many refusals had no rows of their own, when it is time.
    pub async fn count_refusals(&self, ending: bool) {
        let rows = lock(&self.refusals).over(ending);
        for row in rows {
            self.record(row).await;
        }
    }

    /// For what is told and not asked for: a full disk keeps nobody from signing in to look.
    async fn record(&self, row: NewAudit) {
        if let Err(error) = self.store.record(row).await {
            tracing::error!(%error, "a row of the audit could not be written");
        }
    }
}
