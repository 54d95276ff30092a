//! Command lines to words, without a shell.

use wire::CommandLine;

/// More words or longer ones are a mistake.
const MOST: usize = 256;

/// Why a command line cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// A quotation mark has no partner.
    #[error("a quotation mark is not closed")]
    Open,
    /// Something only a shell would understand.
    #[error("{0:?} needs a shell, and none is used: give the command as a list of words")]
    Shell(char),
    /// Too much.
    #[error("more than {MOST} words, or one longer than 8192 bytes, or one with a NUL")]
    TooLong,
}

/// The words of a command line.
///
/// # Errors
/// See [`WordsError`].
pub fn of(line: &CommandLine) -> Result<Vec<String>, WordsError> {
    let words = match line {
        CommandLine::Text(text) => split(text)?,
        CommandLine::Words(words) => words.clone(),
    };
    if words.len() > MOST || words.iter().any(|word| word.len() > 8192 || word.contains('\0')) {
        return Err(WordsError::TooLong);
    }
    Ok(words)
}

/// Splits at white space; `'…'` and `"…"` keep it, and `\` takes the next letter as it is,
/// except between `'`.
///
/// # Errors
/// See [`WordsError`].
pub fn split(text: &str) -> Result<Vec<String>, WordsError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next() {
                        Some('\'') => break,
                        Some(letter) => word.push(letter),
                        None => return Err(WordsError::Open),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next() {
                        Some('"') => break,
                        Some('\\') => word.push(letters.next().ok_or(WordsError::Open)?),
                        Some(letter @ ('$' | '`')) => return Err(WordsError::Shell(letter)),
                        Some(letter) => word.push(letter),
                        None => return Err(WordsError::Open),
                    }
                }
            }
            '\\' => {
                word.get_or_insert_default().push(letters.next().ok_or(WordsError::Open)?);
            }
            '|' | '&' | ';' | '<' | '>' | '(' | ')' | '$' | '`' | '*' | '?' | '[' | '{' | '#'
            | '~' | '!' => return Err(WordsError::Shell(letter)),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_spaces_and_a_shell_is_never_needed() {
        assert_eq!(split(" node  'a b' \"c d\"\\ e '' ").unwrap(), ["node", "a b", "c d e", ""]);
        for wrong in ["a && b", "a | b", "a $HOME", "a \"$(id)\"", "a `id`", "a > b", "ls *.js"] {
            assert!(matches!(split(wrong), Err(WordsError::Shell(_))), "{wrong}");
        }
        for wrong in ["'a", "\"a", "a\\"] {
            assert_eq!(split(wrong), Err(WordsError::Open), "{wrong}");
        }
    }
}
