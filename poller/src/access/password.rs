//! Passwords: argon2id with the parameters that OWASP names (19 MiB, two passes). One is hashed
//! at a time, since each takes that memory, and few wait for their turn.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use service::limits::{Busy, Turns};

/// Bytes of a password.
const SHORTEST: usize = 12;
const LONGEST: usize = 256;
/// What the passwords of names that nobody has are compared with, so that the time tells nothing.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5MTIzNA\
                      $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Passwords(Turns);

impl Passwords {
    /// Whether it is the password of that hash; of nobody where there is none.
    pub(super) async fn fits(&self, password: String, hash: Option<String>) -> Result<bool, Busy> {
        if password.len() > LONGEST {
            return Ok(false);
        }
        let looked = self.0.take(move || {
            let known = hash.is_some();
            let hash = hash.as_deref().unwrap_or(NOBODY);
            let fits = PasswordHash::new(hash).is_ok_and(|hash| {
                Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
            });
            known && fits
        });
        looked.await
    }

    /// The hash to keep of a password that [`acceptable`] let through.
    pub(super) async fn hash(&self, password: String) -> Result<Result<String, String>, Busy> {
        self.0.take(move || hash(&password)).await
    }
}

/// Whether a new password will do.
///
/// # Errors
/// What is wrong with it, without it.
pub fn acceptable(name: &str, password: &str) -> Result<(), String> {
    if !(SHORTEST..=LONGEST).contains(&password.len()) {
        return Err(format!("{SHORTEST} to {LONGEST} bytes are expected"));
    }
    if password.chars().any(char::is_control) {
        return Err("control characters are not allowed".to_owned());
    }
    if password.eq_ignore_ascii_case(name) {
        return Err("is the name".to_owned());
    }
    Ok(())
}

/// The hash to keep, in the PHC string format.
///
/// # Errors
/// There are no random numbers, or no memory.
pub fn hash(password: &str) -> Result<String, String> {
    let hash: PasswordHash =
        Argon2::default().hash_password(password.as_bytes()).map_err(|error| error.to_string())?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_right_password_fits() {
        let kept = hash("correct horse battery").unwrap();
        assert!(kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{kept}");
        assert_ne!(kept, hash("correct horse battery").unwrap());
        let passwords = Passwords::default();
        let fits = async |password: &str, hash: Option<&str>| {
            passwords.fits(password.to_owned(), hash.map(str::to_owned)).await
        };
        assert_eq!(fits("correct horse battery", Some(&kept)).await, Ok(true));
        assert_eq!(fits("correct horse batterz", Some(&kept)).await, Ok(false));
        assert_eq!(fits("", Some(&kept)).await, Ok(false));
        assert_eq!(fits("correct horse battery", None).await, Ok(false));
        assert_eq!(fits("correct horse battery", Some("broken")).await, Ok(false));
        // As much work is done for a name that nobody has.
        assert!(PasswordHash::new(NOBODY).is_ok());
    }

    #[test]
    fn short_ones_and_names_will_not_do() {
        for wrong in ["", "short", "alice.alice.", &"x".repeat(257), "a\nbcdefghijklm"] {
            assert!(acceptable("alice.alice.", wrong).is_err(), "{wrong}");
        }
        assert!(acceptable("alice", "twelve bytes").is_ok());
    }
}
