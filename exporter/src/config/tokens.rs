//! `[[tokens]]`: who may do what, to which apps and slots, until when.

use service::config::Reader;
use service::token::TokenHash;
use wire::SlotId;

use crate::access::{Limits, Scope, TokenEntry};

/// Most apps or slots that a token is limited to.
const MOST: usize = 1_000;

pub(super) fn read(reader: &mut Reader) -> Vec<TokenEntry> {
    let mut names = Vec::new();
    reader.tables("tokens", |reader| {
        let name = reader.parsed("name", |text| {
            let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
            if text.is_empty() || text.len() > 64 || !text.chars().all(plain) {
                return Err(format!(
                    "{text:?} is not a name: 1 to 64 letters, digits, '-', '_', '.'"
                ));
            }
            Ok(text.to_owned())
        });
        // The value is not shown: somebody may have put the token itself here.
        let hash = reader.parsed("sha256", |text| text.parse::<TokenHash>().map_err(str::to_owned));
        let scopes = reader.list("scopes", |text| text.parse::<Scope>());
        let apps = reader.list("apps", app);
        let slots =
            reader.list("slots", |text| text.parse::<SlotId>().map_err(|error| error.to_string()));
        let expires = reader.value("expires");
        for (key, missing) in
            [("name", name.is_none()), ("sha256", hash.is_none()), ("scopes", scopes.is_none())]
        {
            if missing && !reader.was_wrong(key) {
                reader.mistake(key, "is missing");
            }
        }
        for (key, count) in
            [("apps", apps.as_ref().map(Vec::len)), ("slots", slots.as_ref().map(Vec::len))]
        {
            if count.is_some_and(|count| count > MOST) {
                reader.mistake(key, format!("names over {MOST}"));
            }
        }
        let (name, hash, scopes) = (name?, hash?, scopes?);
        if names.contains(&name) {
            reader.mistake("name", format!("{name:?} names an earlier token already"));
            return None;
        }
        names.push(name.clone());
        Some(TokenEntry { name, hash, scopes, limits: Limits::new(apps, slots), expires })
    })
}

fn app(text: &str) -> Result<String, String> {
    match text.len() {
        1..=255 => Ok(text.to_owned()),
        _ => Err(format!("{:?} is not 1 to 255 bytes", text.chars().take(40).collect::<String>())),
    }
}
