use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use service::token::TokenHash;
use tokio::time::Instant;

/// How long a session lasts.
pub const SESSION_HOURS: u64 = 12;
const LIFE: Duration = Duration::from_secs(SESSION_HOURS * 3600);
/// Sessions at a time; the oldest gives way.
const MOST: usize = 1000;
const NAME: &str = "pm2_poller_session";

struct Session {
    token: i64,
    begun: Instant,
}

/// Sessions of the page, by the SHA-256 of their cookie: what is in memory opens nothing.
#[derive(Default)]
pub(super) struct Sessions(HashMap<[u8; 32], Session>);

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sessions({})", self.0.len())
    }
}

impl Sessions {
    /// A new session's cookie.
    pub(super) fn begin(&mut self, token: i64) -> Result<String, getrandom::Error> {
        let mut random = [0u8; 32];
        getrandom::fill(&mut random)?;
        let cookie = random.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        self.0.retain(|_, session| session.begun.elapsed() < LIFE);
        if self.0.len() >= MOST {
            let oldest = self.0.iter().min_by_key(|(_, session)| session.begun);
            if let Some(oldest) = oldest.map(|(hash, _)| *hash) {
                self.0.remove(&oldest);
            }
        }
        let session = Session { token, begun: Instant::now() };
        self.0.insert(*TokenHash::of(&cookie).as_bytes(), session);
        Ok(cookie)
    }

    /// The token whose holder began the session.
    pub(super) fn token(&self, cookie: &str) -> Option<i64> {
        let session = self.0.get(TokenHash::of(cookie).as_bytes())?;
        (session.begun.elapsed() < LIFE).then_some(session.token)
    }

    pub(super) fn end(&mut self, cookie: &str) {
        self.0.remove(TokenHash::of(cookie).as_bytes());
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

/// The `Set-Cookie` header of a session; an empty value ends it in the browser.
pub fn session_cookie(value: &str) -> String {
    let age = if value.is_empty() { 0 } else { LIFE.as_secs() };
    format!("{NAME}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn sessions_end_and_the_oldest_gives_way() {
        let mut sessions = Sessions::default();
        let first = sessions.begin(1).unwrap();
        assert_eq!(sessions.token(&first), Some(1));
        assert_eq!(sessions.token("guess"), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..MOST {
            sessions.begin(2).unwrap();
        }
        assert_eq!((sessions.0.len(), sessions.token(&first)), (MOST, None));
        let last = sessions.begin(3).unwrap();
        tokio::time::advance(LIFE).await;
        assert_eq!(sessions.token(&last), None);
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
