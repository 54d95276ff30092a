//! A deployment's log: bounded, free of secrets, and with its last lines at hand.

mod secrets;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use secrets::Secrets;

/// Lines that are told with a failure, and how long each may be.
const LAST: (usize, usize) = (20, 400);

/// What our own lines begin with, and no printed one.
const OWN: &str = "==> ";

/// Most bytes of one of our own lines, and of all that are written to a log that is full.
const OWN_MOST: (usize, u64) = (4 * 1024, 64 * 1024);

/// Bytes of a piece that the last lines are found in, once the log is full.
const LOOKED_AT: usize = 8 * 1024;

#[derive(Debug)]
struct Inner {
    file: File,
    written: u64,
    limit: u64,
    full: bool,
    /// Bytes of our own lines that may still be written beyond the limit.
    own_left: u64,
    last: VecDeque<String>,
    partial: Vec<u8>,
    secrets: Secrets,
}

/// See the module. Clones write to the same log.
#[derive(Clone, Debug)]
pub struct Log(Arc<Mutex<Inner>>);

impl Log {
    /// A new log, at most `limit` bytes long. `secrets` are texts that must not be in it.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path, limit: u64, secrets: Vec<String>) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let written = file.metadata()?.len();
        Ok(Self(Arc::new(Mutex::new(Inner {
            file,
            written,
            limit,
            full: false,
            own_left: OWN_MOST.1,
            last: VecDeque::new(),
            partial: Vec::new(),
            secrets: Secrets::new(secrets),
        }))))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line of our own: what is done next.
    pub fn note(&self, text: &str) {
        let mut inner = self.inner();
        inner.end_line();
        // It can tell what a program said, which then is no more than words of this line.
        let text = inner.secrets.taken_out(text.as_bytes());
        let mut text = String::from_utf8_lossy(&text).replace(char::is_control, " ");
        text.truncate(text.floor_char_boundary(OWN_MOST.0));
        inner.own(&text);
    }

    /// Something that a program printed, in pieces as they come.
    pub fn add(&self, bytes: &[u8]) {
        let mut inner = self.inner();
        let mut bytes = bytes;
        // Of what is left out anyhow, only the end is looked at: one that prints a gigabyte
        // must not cost a gigabyte's work.
        if inner.full && bytes.len() > LOOKED_AT {
            inner.partial.clear();
            bytes = &bytes[bytes.len() - LOOKED_AT..];
            let begin = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            bytes = &bytes[begin..];
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            // A line without an end must not fill the memory.
            if inner.partial.len() < 16 * 1024 {
                inner.partial.extend_from_slice(piece);
            }
            if piece.ends_with(b"\n") {
                inner.end_line();
            }
        }
    }

    /// The last lines, without our own.
    pub fn last_lines(&self) -> Vec<String> {
        let mut inner = self.inner();
        inner.end_line();
        inner.last.iter().cloned().collect()
    }

    /// The last lines of what follows are wanted.
    pub fn forget_lines(&self) {
        self.inner().last.clear();
    }
}

impl Inner {
    fn end_line(&mut self) {
        let mut line = std::mem::take(&mut self.partial);
        while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            line.pop();
        }
        if line.is_empty() {
            return;
        }
        let line = self.secrets.taken_out(&line);
        let text = String::from_utf8_lossy(&line).into_owned();
        let shown = text.chars().filter(|letter| !letter.is_control()).take(LAST.1).collect();
        self.last.push_back(shown);
        if self.last.len() > LAST.0 {
            self.last.pop_front();
        }
        self.printed(&text);
    }

    /// A line of our own. A log that is full has room for some.
    fn own(&mut self, text: &str) {
        let line = format!("{OWN}{text}\n");
        let size = line.len() as u64;
        if self.written + size > self.limit {
            match self.own_left.checked_sub(size) {
                Some(left) => self.own_left = left,
                None => return,
            }
        }
        self.write(line.as_bytes());
    }

    /// A line that a program printed, which is none of our own, whatever it looks like. Where a
    /// carriage return stands, a terminal begins anew.
    fn printed(&mut self, text: &str) {
        let mut line = String::with_capacity(text.len() + 1);
        for (at, part) in text.split('\r').enumerate() {
            if at > 0 {
                line.push('\r');
            }
            if part.trim_start_matches(char::is_control).starts_with(OWN.trim_end()) {
                line.push(' ');
            }
            line.push_str(part);
        }
        line.push('\n');
        if self.written + line.len() as u64 <= self.limit {
            self.write(line.as_bytes());
        } else if !std::mem::replace(&mut self.full, true) {
            self.own(&format!("more than {} bytes: the rest is left out", self.limit));
        }
    }

    fn write(&mut self, line: &[u8]) {
        self.written += line.len() as u64;
        // A disk that is full must not end a deployment that could still succeed.
        let _ = self.file.write_all(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_the_last_lines_and_secrets_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let log = Log::create(&path, 1000, vec!["canary".to_owned()]).unwrap();
        log.note("installing");
        for number in 0..10_000 {
            log.add(format!("line {number} can").as_bytes());
            log.add(b"ary\n");
        }
        log.add(b"the end");
        assert_eq!(log.last_lines().last().unwrap(), "the end");
        assert_eq!(log.last_lines().len(), 20);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.len() < 1200 && text.starts_with("==> installing\nline 0 [secret]\n"),
            "{text}"
        );
        assert!(text.contains("the rest is left out"));
    }

    #[test]
    fn what_is_printed_is_no_line_of_our_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let log = Log::create(&path, 10_000, vec!["canary".to_owned()]).unwrap();
        log.note("installing");
        log.add(b"==> done\n\r==> done\nx\r==> done\n\x1b==> done\n > ==> said\n");
        log.note("failed: canary\n==> done");
        for number in 0..10_000 {
            log.add(format!("==> line {number}\n").as_bytes());
        }
        log.note("done");
        for _ in 0..50 {
            log.note(&"ü".repeat(3_000));
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let own: Vec<&str> = text.lines().filter(|line| line.starts_with("==>")).collect();
        assert_eq!(
            own[..4],
            [
                "==> installing",
                "==> failed: [secret] ==> done",
                "==> more than 10000 bytes: the rest is left out",
                "==> done"
            ]
        );
        assert!(
            text.contains("\n ==> done\n\r ==> done\nx\r ==> done\n \x1b==> done\n > ==> said\n")
        );
        assert!(text.len() < 10_000 + 80_000, "{}", text.len());
    }
}
