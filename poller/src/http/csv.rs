//! Fields of CSV (RFC 4180). Names come from applications and from whoever asks, so that a
//! spreadsheet must not take them for formulas.

/// A field in quotes where it needs them, and with an apostrophe before what a spreadsheet
/// would take for a formula.
pub(super) fn field(text: &str) -> String {
    let wide = ['\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];
    let formula =
        text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) || text.starts_with(wide);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    match text.contains(['"', ',', '\r', '\n', ';', '\t']) || formula {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}
