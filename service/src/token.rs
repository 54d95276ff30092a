//! Bearer tokens: a prefix, 30 random characters of 62 (178.6 bits), and a checksum, so that
//! scanners find leaked ones without guessing (the form GitHub and crates.io use). Kept as
//! SHA-256 only; compared in constant time.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const RANDOM: usize = 30;
const CHECK: usize = 6;

/// Which program issued a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issuer {
    /// `pm2x_`
    Exporter,
    /// `pm2p_`
    Poller,
}

impl Issuer {
    fn prefix(self) -> &'static str {
        match self {
            Self::Exporter => "pm2x_",
            Self::Poller => "pm2p_",
        }
    }
}

/// A token in the clear. Never printed by `Debug`; only [`Token::reveal`] gives the text.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A new token.
    ///
    /// # Errors
    /// The operating system gives no random numbers.
    pub fn new(issuer: Issuer) -> Result<Self, getrandom::Error> {
        let mut text = String::with_capacity(5 + RANDOM + CHECK);
        text.push_str(issuer.prefix());
        while text.len() < issuer.prefix().len() + RANDOM {
            let mut bytes = [0u8; 64];
            getrandom::fill(&mut bytes)?;
            // 248 is the largest multiple of 62 in a byte: beyond it, some letters would come
            // up more often than others.
            for byte in bytes.into_iter().filter(|byte| *byte < 248) {
                if text.len() < issuer.prefix().len() + RANDOM {
                    text.push(char::from(ALPHABET[usize::from(byte % 62)]));
                }
            }
        }
        let check = checksum(&text);
        text.push_str(&check);
        Ok(Self(text))
    }

    /// What the holder must send. For showing it once.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is kept.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.0)
    }

    /// Whether `text` has the form and checksum of a token of `issuer`.
    pub fn is_well_formed(text: &str, issuer: Issuer) -> bool {
        let Some(random) = text.strip_prefix(issuer.prefix()) else { return false };
        random.len() == RANDOM + CHECK
            && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && text.ends_with(&checksum(&text[..text.len() - CHECK]))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The first 6 base-62 digits' worth (35 bits) of the text's SHA-256.
fn checksum(text: &str) -> String {
    let hash = Sha256::digest(text.as_bytes());
    let mut rest = hash.iter().take(8).fold(0u64, |number, byte| (number << 8) | u64::from(*byte));
    let mut digits = String::with_capacity(CHECK);
    for _ in 0..CHECK {
        digits.push(char::from(ALPHABET[(rest % 62) as usize]));
        rest /= 62;
    }
    digits
}

/// SHA-256 of a token, written as 64 hexadecimal digits.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Of any text, as it was sent.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// From its bytes, as a database keeps them.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether both are the same, in a time that does not depend on where they differ.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

impl FromStr for TokenHash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "not a SHA-256: 64 hexadecimal digits expected";
        let mut hash = [0u8; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(WRONG);
        }
        for (index, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| WRONG)?;
        }
        Ok(Self(hash))
    }
}

/// The token of an `Authorization: Bearer …` header, if it is one. Of two headers, whoever stands in
/// between may have looked at the other one.
pub fn bearer(headers: &axum::http::HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(axum::http::header::AUTHORIZATION).iter();
    let header = all.next()?.to_str().ok().filter(|_| all.next().is_none())?;
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_token_is_well_formed_and_unlike_the_last() {
        let (one, two) =
            (Token::new(Issuer::Exporter).unwrap(), Token::new(Issuer::Exporter).unwrap());
        assert!(Token::is_well_formed(one.reveal(), Issuer::Exporter), "{}", one.reveal());
        assert!(!Token::is_well_formed(one.reveal(), Issuer::Poller));
        assert_ne!(one.reveal(), two.reveal());
        assert_eq!(one.reveal().len(), 41);
        assert!(!format!("{one:?}").contains(&one.reveal()[5..]));
    }

    #[test]
    fn one_wrong_character_breaks_the_checksum() {
        let token = Token::new(Issuer::Poller).unwrap();
        for at in 5..token.reveal().len() {
            let mut wrong: Vec<u8> = token.reveal().into();
            wrong[at] = if wrong[at] == b'x' { b'y' } else { b'x' };
            let wrong = String::from_utf8(wrong).unwrap();
            assert!(!Token::is_well_formed(&wrong, Issuer::Poller), "{wrong}");
        }
    }

    #[test]
    fn hashes_are_written_and_read_as_hexadecimal() {
        // SHA-256 of "abc", FIPS 180-2 appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(TokenHash::of("abc").to_string(), abc);
        assert!(abc.parse::<TokenHash>().unwrap().matches(&TokenHash::of("abc")));
        assert!(!abc.parse::<TokenHash>().unwrap().matches(&TokenHash::of("abd")));
        for wrong in ["", "ba78", &abc.replace('b', "g"), &"é".repeat(32)] {
            assert!(wrong.parse::<TokenHash>().is_err(), "{wrong}");
        }
    }
}
