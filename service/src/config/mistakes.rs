use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where: `servers[1].url`; empty for the file as a whole.
    pub key: String,
    /// What: the value and what is allowed.
    pub message: String,
    /// File, variable or flag that says so.
    pub origin: String,
}

/// Everything that is wrong, one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Mistake { key, message, origin }) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match (key.is_empty(), origin.is_empty()) {
                (true, true) => write!(f, "{message}")?,
                (true, false) => write!(f, "{origin}: {message}")?,
                (false, true) => write!(f, "{key}: {message}")?,
                (false, false) => write!(f, "{key} ({origin}): {message}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}
