//! Logging to stderr, as text for people or JSON for machines.

use std::io::{self, IsTerminal, Write};
use std::str::FromStr;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is not a log format: text or json")),
        }
    }
}

/// What is logged: `info`, or `info,hyper=debug`.
#[derive(Clone, Debug)]
pub struct Level(Targets);

impl Default for Level {
    fn default() -> Self {
        Self(Targets::new().with_default(tracing::Level::INFO))
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A word that is no level would be a target, and silence all others.
        let is_level = |part: &str| {
            let level = part.rsplit('=').next().unwrap_or_default().trim();
            !level.is_empty() && level.parse::<LevelFilter>().is_ok()
        };
        let parsed = text.split(',').all(is_level).then(|| text.parse().ok()).flatten();
        parsed.map(Self).ok_or_else(|| {
            format!("{text:?} is not a log level: off, error, warn, info, debug or trace, or target=level pairs")
        })
    }
}

/// Starts logging. Later calls in the same process do nothing.
pub fn init(format: Format, level: Level) {
    let registry = tracing_subscriber::registry().with(level.0);
    let ansi = format == Format::Text && io::stderr().is_terminal();
    let writer = move || OneLine { into: io::stderr(), ansi };
    let layer = tracing_subscriber::fmt::layer().with_ansi(ansi).with_writer(writer);
    let result = match format {
        Format::Text => registry.with(layer).try_init(),
        Format::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
    if result.is_err() {
        tracing::debug!("logging was started before");
    }
}

/// Keeps an event to one line, whatever names and errors of others it holds: a line break in one of
/// them would begin what looks like another event. Nor does a file hold what moves a terminal.
struct OneLine<W> {
    into: W,
    /// Colours are the layer's own, which lets no other escapes through.
    ansi: bool,
}

impl<W> OneLine<W> {
    fn is_kept(&self, byte: u8) -> bool {
        !byte.is_ascii_control() || byte == b'\t' || (self.ansi && byte == 0x1b)
    }
}

impl<W: Write> Write for OneLine<W> {
    /// A whole event, as the layer above writes it.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = event.strip_suffix(b"\n").unwrap_or(event);
        if text.iter().all(|byte| self.is_kept(*byte)) {
            return self.into.write_all(event).map(|()| event.len());
        }
        let mut line = Vec::with_capacity(event.len() + 16);
        for byte in text {
            match self.is_kept(*byte) {
                true => line.push(*byte),
                false => line.extend(byte.escape_ascii()),
            }
        }
        line.extend_from_slice(&event[text.len()..]);
        self.into.write_all(&line).map(|()| event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_levels_are_levels() {
        for good in ["info", "WARN", "off", "info,hyper=debug", "hyper=debug,warn"] {
            assert!(good.parse::<Level>().is_ok(), "{good}");
        }
        for wrong in ["warning", "loud", "", "info,", "hyper", "hyper=", "info,hyper=loud"] {
            let error = wrong.parse::<Level>().unwrap_err();
            assert!(error.starts_with(&format!("{wrong:?} is not a log level: ")), "{error}");
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_it_holds() {
        let kept = Kept::default();
        let into = kept.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || OneLine { into: into.clone(), ansi: false });
        let forged = "x\n2026-01-31T12:00:00Z  INFO all is well\r\u{1b}[2J";
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::error!(app = forged, error = %forged, other = ?forged, "it failed: {forged}");
            tracing::info!("the next");
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(!text.contains(['\r', '\u{1b}']), "{text:?}");
    }
}
