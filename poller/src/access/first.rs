//! The first admin: a program that knows nobody prints a link, good once and for half an hour,
//! at which whoever can read its log says their name and password.

use std::time::Duration;

use service::token::TokenHash;
use tokio::time::Instant;

use super::session::random;
use super::{Access, lock};

/// How long the link is good, in minutes.
pub const FIRST_MINUTES: u64 = 30;

/// What opens the way, as its hash.
#[derive(Debug)]
pub(super) struct First {
    key: TokenHash,
    until: Instant,
}

impl Access {
    /// A new key for the first admin, where there is neither user nor token.
    pub fn open_first(&self) -> Option<String> {
        if self.known().any {
            return None;
        }
        let key = random::<20>().inspect_err(|error| {
            tracing::error!(%error, "no random numbers for the first admin's link");
        });
        let key = key.ok()?;
        let until = Instant::now() + Duration::from_secs(FIRST_MINUTES * 60);
        *lock(&self.first) = Some(First { key: TokenHash::of(&key), until });
        Some(key)
    }

    /// Whether that is the key, and still good.
    pub fn is_first(&self, key: &str) -> bool {
        let first = lock(&self.first);
        let fits =
            |first: &First| first.until > Instant::now() && first.key.matches(&TokenHash::of(key));
        !self.known().any && first.as_ref().is_some_and(fits)
    }

    /// Takes the key: whoever comes second finds none.
    pub fn take_first(&self, key: &str) -> bool {
        let is = self.is_first(key);
        if is {
            *lock(&self.first) = None;
        }
        is
    }
}
