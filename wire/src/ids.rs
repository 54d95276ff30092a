//! Names that are valid by construction: once parsed, no later code checks them again.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use smol_str::SmolStr;

/// Why a text is not the name that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not a valid {what}: {allowed}")]
pub struct InvalidId {
    /// What was expected: `server id`, `app name`, …
    pub what: &'static str,
    /// The text as given, cut to 100 characters.
    pub value: String,
    /// What is allowed.
    pub allowed: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $allowed:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(SmolStr);

        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            fn check(text: &str) -> Result<(), InvalidId> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    return Ok(());
                }
                Err(InvalidId {
                    what: $what,
                    value: text.chars().take(100).collect(),
                    allowed: $allowed,
                })
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl std::ops::Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = SmolStr::deserialize(deserializer)?;
                Self::check(&text).map_err(de::Error::custom)?;
                Ok(Self(text))
            }
        }
    };
}

fn is_plain(text: &str, max: usize) -> bool {
    let mut bytes = text.bytes();
    text.len() <= max
        && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

id!(
    /// A server as the poller knows it: `vm1-prod`.
    ServerId,
    "server id",
    "1 to 128 letters, digits, '-', '_' or '.', the first a letter or digit",
    |text| is_plain(text, 128)
);

id!(
    /// A slot: `a`. Its PM2 process is called `slot-a`.
    SlotId,
    "slot id",
    "1 to 32 letters, digits, '-' or '_', the first a letter or digit",
    |text| is_plain(text, 32) && !text.contains('.')
);

id!(
    /// A command, named by whoever asks for it: a UUID, for instance.
    CommandId,
    "command id",
    "1 to 128 letters, digits, '-', '_' or '.', the first a letter or digit",
    |text| is_plain(text, 128)
);

id!(
    /// The name of an application as PM2 has it: any text without control characters.
    ///
    /// It is only ever compared with the names of processes that exist; it is never read as
    /// an id, a pattern, a namespace or `all`.
    AppName,
    "app name",
    "1 to 255 bytes without control characters",
    |text| (1..=255).contains(&text.len()) && !text.chars().any(char::is_control)
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_ids_are_plain() {
        for good in ["vm1-prod", "a", "1", "eu.west_2", &"x".repeat(128)] {
            assert_eq!(good.parse::<ServerId>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", ".", "..", "a/b", "a b", "ü", "a\n", &"x".repeat(129)] {
            let error = bad.parse::<ServerId>().unwrap_err();
            assert!(error.to_string().contains("server id"), "{error}");
        }
    }

    #[test]
    fn app_names_may_be_odd_but_not_hostile_to_a_log_line() {
        for good in ["api", "my app", "ünï", "/regex/", "all", "0", "<b>"] {
            assert!(good.parse::<AppName>().is_ok(), "{good}");
        }
        for bad in ["", "a\nb", "\u{1b}[31m", "a\u{7f}", &"x".repeat(256)] {
            assert!(bad.parse::<AppName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn json_is_checked_when_read() {
        assert!(serde_json::from_str::<SlotId>("\"a\"").is_ok());
        let error = serde_json::from_str::<SlotId>("\"../a\"").unwrap_err();
        assert!(error.to_string().contains("slot id"), "{error}");
    }
}
