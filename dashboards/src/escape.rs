//! How text gets into a page: escaped, and without marks that nobody sees.

use std::fmt::{self, Write};

use askama::filters::{Escaper, Html};

/// HTML's own escaping, and `\u{fffd}` in place of marks of direction and control characters
/// other than line breaks and tabs (the colours of a terminal in an error's text, say).
///
/// `<bdi>` alone does not hold marks of direction: an isolate that is opened in a name and never
/// closed uses up the end of the `<bdi>` around it, and the page behind it is turned round.
/// Hebrew or Arabic names need no marks; `<bdi>` serves them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shown;

impl Escaper for Shown {
    fn write_escaped_str<W: Write>(&self, mut dest: W, string: &str) -> fmt::Result {
        let mut rest = string;
        while let Some(at) = rest.find(is_unseen) {
            let (before, from) = rest.split_at(at);
            Html.write_escaped_str(&mut dest, before)?;
            dest.write_char(char::REPLACEMENT_CHARACTER)?;
            let mut chars = from.chars();
            chars.next();
            rest = chars.as_str();
        }
        Html.write_escaped_str(dest, rest)
    }
}

/// Whether a character changes how others are shown, and is not itself seen.
fn is_unseen(char: char) -> bool {
    if char.is_ascii() {
        return char.is_ascii_control() && !matches!(char, '\n' | '\r' | '\t');
    }
    matches!(
        char,
        '\u{80}'..='\u{9f}' |
        '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let mut out = String::new();
        Shown.write_escaped_str(&mut out, text).unwrap();
        out
    }

    #[test]
    fn markup_is_text_and_direction_stays() {
        assert_eq!(shown("plain ü שלום"), "plain ü שלום");
        assert_eq!(shown("<a href='x'>&\""), "&#60;a href=&#39;x&#39;&#62;&#38;&#34;");
        assert_eq!(shown("\u{202e}a\u{2067}<b\u{2069}"), "\u{fffd}a\u{fffd}&#60;b\u{fffd}");
        assert_eq!(shown("\u{1b}[31mred\r\n\t\u{9b}\0"), "\u{fffd}[31mred\r\n\t\u{fffd}\u{fffd}");
        assert_eq!(shown(""), "");
    }
}
