//! Users with passwords, for Prometheus and whoever else sends `Authorization: Basic`. They may
//! read. One password is looked at at a time: bcrypt is slow, and is meant to be.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use service::limits::{Busy, Turns};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Credentials that were found right, so that a scrape every few seconds costs no bcrypt.
const REMEMBERED: usize = 64;

type Seal = [u8; 32];

/// See the module.
#[derive(Debug)]
pub struct Users {
    users: Vec<(String, String)>,
    /// What unknown names are compared with, so that the time tells nothing.
    nobody: String,
    salt: Seal,
    right: Mutex<VecDeque<(Seal, String)>>,
    turns: Turns,
}

impl Users {
    /// `users` are names and bcrypt's hashes.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn new(users: Vec<(String, String)>) -> anyhow::Result<Self> {
        let mut salt = Seal::default();
        getrandom::fill(&mut salt)
            .map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
        let nobody = users.first().map(|(_, hash)| hash.clone()).unwrap_or_default();
        Ok(Self { users, nobody, salt, right: Mutex::default(), turns: Turns::default() })
    }

    /// Whether they are these.
    pub fn are(&self, users: &[(String, String)]) -> bool {
        self.users == users
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Who asks, if [`Self::look`] found the password right before.
    pub fn known(&self, headers: &HeaderMap) -> Option<String> {
        let seal = self.seal(basic(headers)?);
        let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = None;
        for (known, name) in right.iter() {
            if bool::from(known.ct_eq(&seal)) {
                found = Some(name.clone());
            }
        }
        found
    }

    /// Looks at the password of a request that has one, unless that was done before.
    ///
    /// # Errors
    /// Too many wait for theirs.
    pub async fn look(&self, headers: &HeaderMap) -> Result<(), Busy> {
        let Some(text) = basic(headers) else { return Ok(()) };
        if self.users.is_empty() || self.known(headers).is_some() {
            return Ok(());
        }
        let Some((name, password)) = decoded(text) else { return Ok(()) };
        let user = self.users.iter().find(|(known, _)| *known == name);
        let (there, hash) =
            user.map_or((false, self.nobody.clone()), |(_, hash)| (true, hash.clone()));
        let looked = self.turns.take(move || bcrypt::verify(password, &hash).unwrap_or(false));
        let right = looked.await?;
        if there && right {
            let mut all = self.right.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= REMEMBERED {
                all.pop_front();
            }
            all.push_back((self.seal(text), name));
        }
        Ok(())
    }

    fn seal(&self, text: &str) -> Seal {
        Sha256::new().chain_update(self.salt).chain_update(text).finalize().into()
    }
}

/// Whether a request shows a user and a password.
pub fn is_basic(headers: &HeaderMap) -> bool {
    basic(headers).is_some()
}

fn basic(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("basic").then_some(rest.trim())
}

/// Name and password, by RFC 7617.
fn decoded(text: &str) -> Option<(String, Vec<u8>)> {
    let bytes = BASE64_STANDARD.decode(text).ok()?;
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    let name = std::str::from_utf8(&bytes[..colon]).ok()?.to_owned();
    Some((name, bytes[colon + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(name: &str, password: &str) -> HeaderMap {
        let text = format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}")));
        HeaderMap::from_iter([(header::AUTHORIZATION, text.parse().unwrap())])
    }

    #[tokio::test]
    async fn the_right_password_of_the_right_user_is_known_after_one_look() {
        let hash = |text: &str| bcrypt::hash(text, 4).unwrap();
        let users = [("prom", "se:cret"), ("other", "word")];
        let users = users.map(|(name, password)| (name.to_owned(), hash(password)));
        let users = Users::new(users.to_vec()).unwrap();
        for (name, password, right) in [
            ("prom", "se:cret", true),
            ("other", "word", true),
            ("prom", "word", false),
            ("prom", "", false),
            ("nobody", "se:cret", false),
            ("", "", false),
        ] {
            let headers = asks(name, password);
            assert_eq!(users.known(&headers), None);
            users.look(&headers).await.unwrap();
            assert_eq!(users.known(&headers), right.then(|| name.to_owned()), "{name} {password}");
        }
        for wrong in ["Basic", "Basic !", "Basic cHJvbQ==", "Bearer x"] {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, wrong.parse().unwrap())]);
            users.look(&headers).await.unwrap();
            assert_eq!(users.known(&headers), None);
        }
    }
}
