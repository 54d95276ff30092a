use std::collections::HashMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use service::token::TokenHash;
use tokio::time::Instant;
use wire::Time;

use super::caller::Holder;

/// How long a session lasts.
pub const SESSION_HOURS: u64 = 12;
const LIFE: Duration = Duration::from_secs(SESSION_HOURS * 3600);
/// Sessions at a time; the oldest of whoever has most gives way, so that nobody signs others out.
const MOST: usize = 1000;
const NAME: &str = "pm2_poller_session";

/// A session, as it is shown.
#[derive(Clone, Debug)]
pub struct Session {
    /// What it is called; opens nothing.
    pub id: String,
    /// Number of the token or user, as a caller has it.
    pub holder: i64,
    /// Their name.
    pub name: String,
    /// Since when.
    pub begun_at: Time,
    /// When it was used last.
    pub last_used: Time,
    /// From where it was begun.
    pub address: IpAddr,
    begun: Instant,
    /// When the user's password was set by which it was begun.
    since: Time,
}

/// Sessions of the page, by the SHA-256 of their cookie: what is in memory opens nothing. A
/// restart ends all of them.
#[derive(Default)]
pub(super) struct Sessions(HashMap<[u8; 32], Session>);

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sessions({})", self.0.len())
    }
}

/// Random bytes in hexadecimal.
pub(super) fn random<const N: usize>() -> Result<String, getrandom::Error> {
    let mut random = [0u8; N];
    getrandom::fill(&mut random)?;
    Ok(random.iter().fold(String::with_capacity(2 * N), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

impl Sessions {
    /// A new session's cookie.
    pub(super) fn begin(
        &mut self,
        holder: &Holder,
        address: IpAddr,
    ) -> Result<String, getrandom::Error> {
        let (cookie, id) = (random::<32>()?, random::<8>()?);
        self.0.retain(|_, session| session.begun.elapsed() < LIFE);
        if self.0.len() >= MOST {
            let mut counts: HashMap<i64, usize> = HashMap::new();
            for session in self.0.values() {
                *counts.entry(session.holder).or_default() += 1;
            }
            let most = counts.into_iter().max_by_key(|(_, count)| *count).map(|(holder, _)| holder);
            let theirs = self.0.iter().filter(|(_, session)| Some(session.holder) == most);
            let oldest = theirs.min_by_key(|(_, session)| session.begun).map(|(hash, _)| *hash);
            if let Some(oldest) = oldest {
                self.0.remove(&oldest);
            }
        }
        let now = Time::now();
        let session = Session {
            id,
            holder: holder.number,
            name: holder.name.clone(),
            begun_at: now,
            last_used: now,
            address,
            begun: Instant::now(),
            since: holder.since,
        };
        self.0.insert(*TokenHash::of(&cookie).as_bytes(), session);
        Ok(cookie)
    }

    /// Who began the session, as which of `find` gives their holder now; and what it is called.
    pub(super) fn find<H: AsRef<Holder>>(
        &mut self,
        cookie: &str,
        find: impl FnOnce(i64) -> Option<H>,
    ) -> Option<(H, String)> {
        let session = self.0.get_mut(TokenHash::of(cookie).as_bytes())?;
        let holder = find(session.holder)?;
        let is = session.begun.elapsed() < LIFE && session.since == holder.as_ref().since;
        if !is {
            return None;
        }
        session.last_used = Time::now();
        Some((holder, session.id.clone()))
    }

    /// Whether the session of that name is not over; `since` is its holder's now.
    pub(super) fn goes_on(&self, id: &str, since: Time) -> bool {
        let of_that_name = self.0.values().find(|session| session.id == id);
        of_that_name.is_some_and(|it| it.begun.elapsed() < LIFE && it.since == since)
    }

    /// Every session that is not over, the newest first.
    pub(super) fn list(&self) -> Vec<Session> {
        let alive = self.0.values().filter(|session| session.begun.elapsed() < LIFE);
        let mut all: Vec<Session> = alive.cloned().collect();
        all.sort_by_key(|session| std::cmp::Reverse(session.begun));
        all
    }

    /// Ends a session by its cookie, and gives it.
    pub(super) fn end(&mut self, cookie: &str) -> Option<Session> {
        self.0.remove(TokenHash::of(cookie).as_bytes())
    }

    /// Ends those of which `over` says so.
    pub(super) fn end_where(&mut self, over: impl Fn(&Session) -> bool) {
        self.0.retain(|_, session| !over(session));
    }
}

/// The session's cookie that came with a request.
pub fn cookie_of(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|header| header.to_str().ok())
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == NAME)
        .map(|(_, value)| value)
}

/// The `Set-Cookie` header of a session; an empty value ends it in the browser. Over TLS the
/// browser is told to send it over nothing else.
pub fn session_cookie(value: &str, encrypted: bool) -> String {
    let age = if value.is_empty() { 0 } else { LIFE.as_secs() };
    let secure = if encrypted { "; Secure" } else { "" };
    format!("{NAME}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Limits, Role};
    use std::sync::Arc;

    fn holder(number: i64, since: i64) -> Arc<Holder> {
        Arc::new(Holder {
            number,
            name: "a".into(),
            role: Role::Viewer,
            limits: Limits::default(),
            servers: None,
            expires_at: None,
            since: Time::from_millis(since),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_end_and_the_oldest_of_who_has_most_gives_way() {
        let from = IpAddr::from([127, 0, 0, 1]);
        let mut sessions = Sessions::default();
        let found = |sessions: &mut Sessions, cookie: &str, since: i64| {
            let found = sessions.find(cookie, |number| Some(holder(number, since)));
            found.map(|(holder, _)| holder.number)
        };
        let first = sessions.begin(&holder(1, 7), from).unwrap();
        assert_eq!(found(&mut sessions, &first, 7), Some(1));
        assert_eq!(found(&mut sessions, &first, 8), None, "the password was changed");
        assert_eq!(found(&mut sessions, "guess", 7), None);
        let id = sessions.list()[0].id.clone();
        assert!(sessions.goes_on(&id, Time::from_millis(7)));
        assert!(
            !sessions.goes_on(&id, Time::from_millis(8)) && !sessions.goes_on("x", Time::now())
        );
        tokio::time::advance(Duration::from_secs(1)).await;
        let second = sessions.begin(&holder(2, 7), from).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..MOST {
            sessions.begin(&holder(2, 7), from).unwrap();
        }
        assert_eq!((sessions.0.len(), found(&mut sessions, &second, 7)), (MOST, None));
        assert_eq!(found(&mut sessions, &first, 7), Some(1), "somebody else began them");
        let last = sessions.begin(&holder(3, 7), from).unwrap();
        tokio::time::advance(LIFE).await;
        assert_eq!(found(&mut sessions, &last, 7), None);
        assert!(sessions.list().is_empty() && !sessions.goes_on(&id, Time::from_millis(7)));
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=b; pm2_poller_session=abc; c=d".parse().unwrap());
        assert_eq!(cookie_of(&headers), Some("abc"));
        headers.clear();
        headers.append(header::COOKIE, "xpm2_poller_session=abc".parse().unwrap());
        assert_eq!(cookie_of(&headers), None);
    }
}
