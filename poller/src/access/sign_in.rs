//! Signing in at the page, with a name and a password or with a token.

use std::net::IpAddr;
use std::time::Duration;

use super::caller::Holder;
use super::{Access, lock};
use crate::store::NewAudit;

/// How signing in went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignIn {
    /// The cookie's value.
    Done(String),
    /// The credential is worth nothing: which part of it is not said.
    Wrong,
    /// Too many wrong ones from that address; try again after so long.
    TooMany(Duration),
    /// Too many passwords wait to be looked at.
    Busy,
    /// There are no random numbers.
    Failed,
}

impl Access {
    /// Begins a session for the holder of a token.
    pub async fn sign_in_with_token(&self, token: &str, address: IpAddr) -> SignIn {
        if let Err(wait) = self.bad_logins.take(address) {
            return SignIn::TooMany(wait);
        }
        match self.by_text(token.trim()).await {
            Some(holder) => self.begin(&holder, address).await,
            None => SignIn::Wrong,
        }
    }

    /// Begins a session for a user.
    pub async fn sign_in(&self, name: &str, password: String, address: IpAddr) -> SignIn {
        if let Err(wait) = self.bad_logins.take(address) {
            return SignIn::TooMany(wait);
        }
        if !self.known().users.contains_key(name) {
            self.look_again().await;
        }
        let user = self.known().users.get(name).cloned();
        let (number, hash) = user.unzip();
        match self.passwords.fits(password, hash).await {
            Err(_) => {
                // It was not looked at, so that it counts for nothing.
                self.bad_logins.give_back(address);
                SignIn::Busy
            }
            Ok(false) => SignIn::Wrong,
            Ok(true) => {
                let holder = number.and_then(|it| self.known().by_number.get(&it).cloned());
                match holder.filter(|holder| holder.is_valid()) {
                    Some(holder) => self.begin(&holder, address).await,
                    None => SignIn::Wrong,
                }
            }
        }
    }

    async fn begin(&self, holder: &Holder, address: IpAddr) -> SignIn {
        self.bad_logins.give_back(address);
        let begun = lock(&self.sessions).begin(holder, address);
        let cookie = match begun {
            Ok(cookie) => cookie,
            Err(error) => {
                tracing::error!(%error, "no random numbers for a session");
                return SignIn::Failed;
            }
        };
        self.is_used(holder);
        let row = NewAudit {
            who: holder.name.clone(),
            via: Some(if holder.number < 0 { "password" } else { "token" }),
            address: address.to_string(),
            act: "sign in",
            outcome: "succeeded".to_owned(),
            subject: "session".to_owned(),
            ..NewAudit::default()
        };
        self.record(row).await;
        SignIn::Done(cookie)
    }

    /// Whether that is a user's password. Wrong ones count as at the login.
    ///
    /// # Errors
    /// How it went otherwise: [`SignIn::TooMany`] or [`SignIn::Busy`].
    pub async fn is_password(
        &self,
        name: &str,
        password: String,
        address: IpAddr,
    ) -> Result<bool, SignIn> {
        self.bad_logins.take(address).map_err(SignIn::TooMany)?;
        let hash = self.known().users.get(name).map(|(_, hash)| hash.clone());
        let fits = self.passwords.fits(password, hash).await;
        if fits != Ok(false) {
            self.bad_logins.give_back(address);
        }
        fits.map_err(|_| SignIn::Busy)
    }

    /// The hash to keep of a new password.
    ///
    /// # Errors
    /// Too many wait, or there are no random numbers.
    pub async fn hash(&self, password: String) -> Result<String, SignIn> {
        match self.passwords.hash(password).await {
            Ok(Ok(hash)) => Ok(hash),
            Ok(Err(error)) => {
                tracing::error!(error, "a password could not be hashed");
                Err(SignIn::Failed)
            }
            Err(_) => Err(SignIn::Busy),
        }
    }
}
