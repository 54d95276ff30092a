//! The journal on disk, so that restarting the exporter loses nothing: a few bounded segments
//! of lines, each `<crc32> <json>`. A tail that was torn by a crash is cut where it tears.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::whole;

/// Segments that are kept; together they hold at least the journal's capacity.
const SEGMENTS: u64 = 3;
/// Earlier lives of the journal whose positions are still understood.
const MAX_EPOCHS: usize = 64;

/// A life of the journal: from one start of the exporter to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Epoch {
    pub(super) epoch: String,
    /// Number of its first entry.
    pub(super) first: u64,
}

/// An entry that was found on disk.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) seq: u64,
    pub(super) is_event: bool,
    pub(super) json: Box<RawValue>,
}

/// The open files.
#[derive(Debug)]
pub(super) struct JournalFile {
    folder: PathBuf,
    segment: u64,
    /// None where there was no room to make it.
    file: Option<File>,
    /// Bytes of whole entries in it.
    written: usize,
    capacity: usize,
    /// All lives, where there was no room for them.
    epochs: Option<Vec<u8>>,
    /// Whether the last write failed, so that it is told once.
    failing: bool,
}

impl JournalFile {
    /// Opens the journal in `folder`, begins a new life named `epoch`, and gives what earlier
    /// ones left: whole entries with consecutive numbers, oldest first, and all lives.
    ///
    /// # Errors
    /// The folder cannot be read or written.
    pub(super) fn open(
        folder: &Path,
        epoch: &str,
        capacity: usize,
    ) -> io::Result<(Self, Vec<Found>, Vec<Epoch>)> {
        fs::create_dir_all(folder)?;
        let mut segments = segments(folder)?;
        segments.sort_unstable();
        let mut found: Vec<Found> = Vec::new();
        let mut whole = 0;
        for segment in &segments {
            let (entries, length) = read(&path(folder, *segment))?;
            whole = length;
            for entry in entries {
                // What stands before a hole is of no use: it could not be told from a loss.
                if found.last().is_some_and(|last| last.seq + 1 != entry.seq) {
                    found.clear();
                }
                found.push(entry);
            }
        }
        let next = found.last().map_or(1, |last| last.seq + 1);
        let mut epochs: Vec<Epoch> = match fs::read(folder.join("epochs.json")) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        // Where a tail was lost, numbers are used again, and only by the new life.
        let next = epochs.last().map_or(next, |last| next.max(last.first));
        epochs.push(Epoch { epoch: epoch.to_owned(), first: next });
        let surplus = epochs.len().saturating_sub(MAX_EPOCHS);
        epochs.drain(..surplus);
        let text = serde_json::to_vec(&epochs)?;
        let last = segments.last().copied();
        // It goes on in the last one while there is room: each start must not push an old one out.
        let goes_on = last.filter(|_| (1..capacity / 2).contains(&whole));
        let mut this = Self {
            folder: folder.to_owned(),
            segment: goes_on.unwrap_or_else(|| last.map_or(1, |last| last + 1)),
            file: None,
            written: if goes_on.is_some() { whole } else { 0 },
            capacity,
            epochs: Some(text),
            failing: false,
        };
        let begun = match goes_on {
            Some(_) => this.go_on(),
            None => this.begin(this.segment),
        };
        match begun {
            Err(error) if is_full(&error) => this.fails(&error),
            begun => begun?,
        }
        Ok((this, found, epochs))
    }

    /// Adds an entry. An error is told in the log; the entry is then in memory only.
    pub(super) fn add(&mut self, json: &str) {
        let line = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
        let result = self.write(line.as_bytes());
        match result {
            Ok(()) => self.failing = false,
            Err(error) => self.fails(&error),
        }
    }

    fn fails(&mut self, error: &io::Error) {
        if !self.failing {
            tracing::error!(%error, "the journal cannot be written; it goes on in memory");
        }
        self.failing = true;
    }

    /// Writes down the lives, where that was not done yet.
    fn keep_epochs(&mut self) -> io::Result<()> {
        if let Some(text) = &self.epochs {
            whole::replace_soon(&self.folder.join("epochs.json"), text)?;
            self.epochs = None;
        }
        Ok(())
    }

    /// Goes on behind what is whole in a segment of an earlier life; what is torn there is cut off.
    fn go_on(&mut self) -> io::Result<()> {
        self.keep_epochs()?;
        let file = OpenOptions::new().append(true).open(path(&self.folder, self.segment))?;
        file.set_len(self.written as u64)?;
        self.file = Some(file);
        Ok(())
    }

    /// Begins a segment, and writes down the lives before.
    fn begin(&mut self, segment: u64) -> io::Result<()> {
        self.keep_epochs()?;
        self.file = Some(create(&path(&self.folder, segment))?);
        (self.segment, self.written) = (segment, 0);
        Ok(())
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let is_full = self.written + line.len() > self.capacity / 2 && self.written > 0;
        // After a failed write the end of the segment is unknown: one in which nothing is whole is
        // begun anew.
        if self.failing || is_full {
            self.begin(self.segment + u64::from(self.written > 0))?;
        }
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        file.write_all(line)?;
        let is_first = self.written == 0;
        self.written += line.len();
        // What is there is worth more than what cannot be written.
        if is_first { self.drop_old() } else { Ok(()) }
    }

    fn drop_old(&self) -> io::Result<()> {
        for segment in segments(&self.folder)? {
            // The one being written comes on top of those that hold the capacity.
            if segment + SEGMENTS < self.segment {
                fs::remove_file(path(&self.folder, segment))?;
            }
        }
        Ok(())
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn path(folder: &Path, segment: u64) -> PathBuf {
    folder.join(format!("{segment:010}.jsonl"))
}

fn segments(folder: &Path) -> io::Result<Vec<u64>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".jsonl"));
        all.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    Ok(all)
}

/// The whole entries of a segment, up to the first that is not, and how many bytes they are.
fn read(path: &Path) -> io::Result<(Vec<Found>, usize)> {
    #[derive(Deserialize)]
    struct Peek {
        seq: u64,
        record: PeekRecord,
    }
    #[derive(Deserialize)]
    struct PeekRecord {
        event: Option<IgnoredAny>,
    }
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let mut found = Vec::new();
    let mut whole = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let entry = || {
            let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
            let (sum, json) = line.split_at_checked(8)?;
            let json = json.strip_prefix(' ')?;
            if u32::from_str_radix(sum, 16).ok()? != crc32fast::hash(json.as_bytes()) {
                return None;
            }
            let peek: Peek = serde_json::from_str(json).ok()?;
            let is_event = peek.record.event.is_some();
            let json = RawValue::from_string(json.to_owned()).ok()?;
            Some(Found { seq: peek.seq, is_event, json })
        };
        match entry() {
            Some(entry) => {
                whole += line.len();
                found.push(entry);
            }
            None => {
                tracing::warn!(file = %path.display(), entries = found.len(), "cut at a torn entry");
                break;
            }
        }
    }
    Ok((found, whole))
}
