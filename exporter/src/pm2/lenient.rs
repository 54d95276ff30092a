//! Values as PM2 happens to send them: a number may come as a text, a text as nothing.

use std::borrow::Cow;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A text; anything else reads as empty.
#[derive(Default)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match FirstText::deserialize(deserializer)? {
            FirstText(Some(text)) => Ok(Self(text)),
            FirstText(None) => Ok(Self::default()),
        }
    }
}

/// A text, or the first text of a list.
#[derive(Default)]
pub(super) struct FirstText<'a>(pub(super) Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for FirstText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = FirstText<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("anything")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<FirstText<'de>, E> {
                Ok(FirstText(Some(Cow::Borrowed(text))))
            }
            fn visit_str<E>(self, text: &str) -> Result<FirstText<'de>, E> {
                Ok(FirstText(Some(Cow::Owned(text.to_owned()))))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<FirstText<'de>, A::Error> {
                let first = list.next_element::<FirstText<'de>>()?;
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(first.unwrap_or_default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FirstText<'de>, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(FirstText(None))
            }
            fn visit_i64<E>(self, _: i64) -> Result<FirstText<'de>, E> {
                Ok(FirstText(None))
            }
            fn visit_u64<E>(self, _: u64) -> Result<FirstText<'de>, E> {
                Ok(FirstText(None))
            }
            fn visit_f64<E>(self, _: f64) -> Result<FirstText<'de>, E> {
                Ok(FirstText(None))
            }
            fn visit_bool<E>(self, _: bool) -> Result<FirstText<'de>, E> {
                Ok(FirstText(None))
            }
            fn visit_unit<E>(self) -> Result<FirstText<'de>, E> {
                Ok(FirstText(None))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A number, a text, a truth value, or nothing, as PM2 happens to send it.
#[derive(Default, Deserialize)]
#[serde(untagged)]
pub(super) enum Lenient {
    Number(f64),
    Truth(bool),
    Text(String),
    Other(IgnoredAny),
    #[default]
    Nothing,
}

impl Lenient {
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        }
        .filter(|number| number.is_finite())
    }

    pub(super) fn millis(&self) -> Option<i64> {
        match self {
            Self::Number(number) if number.is_finite() => Some(*number as i64),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    pub(super) fn whole(&self) -> Option<u32> {
        self.millis().and_then(|number| u32::try_from(number).ok())
    }
}

/// A value, or a list of some.
#[derive(Default, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    Many(Vec<Lenient>),
    One(Lenient),
    #[default]
    Nothing,
}

impl OneOrMany {
    pub(super) fn holds(&self, number: i64) -> bool {
        let is_it = |value: &Lenient| value.millis() == Some(number);
        match self {
            Self::Many(values) => values.iter().any(is_it),
            Self::One(value) => is_it(value),
            Self::Nothing => false,
        }
    }
}
