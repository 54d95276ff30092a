//! What applications print: the last lines of PM2's log files, and what is added to them.
//!
//! Lines come from the files alone, live ones too, so that between "the last lines" and "live"
//! there is neither a gap nor a double, and a line looks the same in both. The bus only says
//! when to look.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::named;

/// A line longer than this is told in pieces.
const MAX_LINE: usize = 64 * 1024;
/// How far back the last lines are looked for, in all files that are looked at together.
const MAX_BACK: u64 = 8 * 1024 * 1024;
/// Read at a time, so that following a flood takes turns with everything else.
const CHUNK: usize = 64 * 1024;

/// Follows one file across rotation.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    file: Option<File>,
    at: u64,
    /// Where it ended when it was opened.
    end: u64,
    partial: Vec<u8>,
}

impl Tail {
    /// Opens the file and gives its last `lines` lines. A file that is not there yet is an
    /// empty one.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn open(path: &Path, lines: usize) -> io::Result<(Self, Vec<String>)> {
        Self::open_behind(path, lines, 1)?.all_of_last(lines)
    }

    /// The same of one of so many files, where the last lines are read by [`Self::read_last`], piece by
    /// piece: whoever sends them on holds little of them. One that is told in pieces counts as one there.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn open_behind(path: &Path, lines: usize, files: usize) -> io::Result<Self> {
        let most = MAX_BACK / files.max(1) as u64;
        Self::begin(path, 0, lines, most.max(CHUNK as u64))
    }

    /// The same of what stands behind the first `after` bytes; of the whole file where it is
    /// shorter, since it was cut or is another then.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn open_after(path: &Path, after: u64, lines: usize) -> io::Result<(Self, Vec<String>)> {
        Self::begin(path, after, lines, MAX_BACK)?.all_of_last(lines)
    }

    fn begin(path: &Path, after: u64, lines: usize, most: u64) -> io::Result<Self> {
        let mut tail =
            Self { path: path.to_owned(), file: None, at: 0, end: 0, partial: Vec::new() };
        let file = match named::read(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(tail),
            Err(error) => return Err(error),
        };
        let mut end = file.metadata()?.len();
        let start = loop {
            match start_of_last(&file, end, lines, most) {
                // It was cut meanwhile: what is left of it is looked at, which is less each time.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    let left = file.metadata()?.len();
                    if left >= end {
                        return Err(error);
                    }
                    end = left;
                }
                found => break found?,
            }
        };
        tail.at = if after > end { start } else { start.max(after) };
        (tail.end, tail.file) = (end, Some(file));
        Ok(tail)
    }

    fn all_of_last(mut self, lines: usize) -> io::Result<(Self, Vec<String>)> {
        let mut last = Vec::new();
        loop {
            let (some, more) = self.read_last()?;
            last.extend(some);
            if !more {
                break;
            }
        }
        // More breaks than lines asked for only come from over-long lines told in pieces.
        let surplus = last.len().saturating_sub(lines);
        last.drain(..surplus);
        Ok((self, last))
    }

    /// Of the last lines that were there when it was opened, some 64 KiB at a time; `more` tells whether
    /// there are more of them.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read_last(&mut self) -> io::Result<(Vec<String>, bool)> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let Some(file) = self.file.as_ref().filter(|_| left > 0) else {
            return Ok((Vec::new(), false));
        };
        let mut buffer = vec![0; CHUNK.min(left)];
        let read = file.read_at(&mut buffer, self.at)?;
        if read == 0 {
            // It was cut meanwhile.
            self.end = self.at;
        }
        self.at += read as u64;
        Ok((self.split(&buffer[..read]), self.at < self.end))
    }

    /// How far the file was read, in bytes.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// What the file ends with that is not a whole line yet.
    pub fn rest(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.partial);
        (!rest.is_empty()).then(|| printable(&rest))
    }

    /// Whole lines that were added since, at most some 64 KiB at a time; `more` tells whether
    /// there is more already.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&mut self) -> io::Result<(Vec<String>, bool)> {
        let mut buffer = vec![0; CHUNK];
        let Some(file) = &self.file else { return Ok((Vec::new(), self.reopen()?)) };
        if file.metadata()?.len() < self.at {
            // It was cut, as logrotate's copytruncate and `pm2 flush` do.
            self.at = 0;
            self.partial.clear();
        }
        let mut read = file.read_at(&mut buffer, self.at)?;
        if read == 0 {
            if !self.is_replaced()? {
                return Ok((Vec::new(), false));
            }
            // What was added before the other one began.
            read = file.read_at(&mut buffer, self.at)?;
        }
        if read == 0 {
            let rest = self.rest();
            return Ok((rest.into_iter().collect(), self.reopen()?));
        }
        self.at += read as u64;
        Ok((self.split(&buffer[..read]), true))
    }

    /// Whether another file of the name is written to by now: until then the one of before may be, as it
    /// is between a rename and PM2's opening of the new one.
    fn is_replaced(&self) -> io::Result<bool> {
        let now = match std::fs::metadata(&self.path) {
            Ok(now) => now,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let Some(file) = &self.file else { return Ok(true) };
        let ours = file.metadata()?;
        Ok((ours.ino(), ours.dev()) != (now.ino(), now.dev()) && now.len() > 0)
    }

    /// Begins with the file of the name, if there is one.
    fn reopen(&mut self) -> io::Result<bool> {
        match named::read(&self.path) {
            Ok(file) => self.file = Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        self.at = 0;
        Ok(true)
    }

    fn split(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            let whole = piece.ends_with(b"\n");
            let mut told = 0;
            while self.partial.len() - told > MAX_LINE + usize::from(whole) {
                let end = told + whole_letters(&self.partial[told..], MAX_LINE);
                lines.push(printable(&self.partial[told..end]));
                told = end;
            }
            if whole {
                lines.push(printable(&self.partial[told..]));
                self.partial.clear();
            } else {
                self.partial.drain(..told);
            }
        }
        lines
    }
}

/// Where the last `lines` lines begin, at most `most` bytes back; an unfinished one at the end counts as
/// none.
fn start_of_last(file: &File, end: u64, lines: usize, most: u64) -> io::Result<u64> {
    let mut breaks = 0;
    let mut at = end;
    let mut buffer = vec![0; CHUNK];
    while at > 0 && end - at < most {
        let size = at.min(CHUNK as u64);
        file.read_exact_at(&mut buffer[..size as usize], at - size)?;
        for (index, byte) in buffer[..size as usize].iter().enumerate().rev() {
            if *byte == b'\n' {
                breaks += 1;
                if breaks > lines {
                    return Ok(at - size + index as u64 + 1);
                }
            }
        }
        at -= size;
    }
    if at == 0 {
        return Ok(0);
    }
    // Too far back: begin at a line's beginning.
    file.read_at(&mut buffer, at)?;
    let next = buffer.iter().position(|byte| *byte == b'\n');
    Ok(at + next.map_or(0, |next| next as u64 + 1))
}

/// The most bytes at the beginning, `most` of them, that end where a letter of UTF-8 does.
fn whole_letters(line: &[u8], most: usize) -> usize {
    let begins = |at: &usize| line.get(*at).is_none_or(|byte| byte & 0b1100_0000 != 0b1000_0000);
    (most.saturating_sub(3)..=most).rev().find(begins).unwrap_or(most)
}

/// A line without its break and without what would steer a terminal.
fn printable(line: &[u8]) -> String {
    String::from_utf8_lossy(line)
        .chars()
        .filter(|letter| *letter == '\t' || !letter.is_control())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    fn all(tail: &mut Tail) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let (more_lines, more) = tail.read().unwrap();
            lines.extend(more_lines);
            if !more {
                return lines;
            }
        }
    }

    fn add(path: &Path, text: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn the_last_lines_and_then_what_is_added() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        add(&path, "one\ntwo\nthree\nunfin");
        let (mut tail, last) = Tail::open(&path, 2).unwrap();
        assert_eq!(last, ["two", "three"]);
        assert_eq!(all(&mut tail), Vec::<String>::new());
        add(&path, "ished\nfour\n");
        assert_eq!(all(&mut tail), ["unfinished", "four"]);
    }

    /// PM2 writes to the renamed file until it is told to open the new one.
    #[test]
    fn what_is_written_between_a_rename_and_the_new_file_is_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
        add(&path, "one\n");
        let (mut tail, _) = Tail::open(&path, 5).unwrap();
        fs::rename(&path, &old).unwrap();
        add(&path, "");
        assert_eq!(all(&mut tail), Vec::<String>::new());
        add(&old, "two\nunfinished");
        assert_eq!(all(&mut tail), ["two"]);
        add(&old, "\nthree\nand");
        add(&path, "four\n");
        assert_eq!(all(&mut tail), ["unfinished", "three", "and", "four"]);
    }

    #[test]
    fn many_files_are_looked_back_in_together_no_further_than_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        add(&path, &"a line of thirty-two bytes here\n".repeat(64 * 1024));
        let lines = |files: usize| {
            let tail = Tail::open_behind(&path, 100_000, files).unwrap();
            tail.all_of_last(100_000).unwrap().1.len()
        };
        assert_eq!(lines(1), 64 * 1024);
        assert!((8 * 1024 - 2..=8 * 1024 + 2048).contains(&lines(32)), "{}", lines(32));
        assert!((2000..=4096).contains(&lines(10_000)), "{}", lines(10_000));
    }

    #[test]
    fn rotation_and_truncation_lose_nothing_that_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (mut tail, last) = Tail::open(&path, 5).unwrap();
        assert!(last.is_empty());
        add(&path, "a\n");
        assert_eq!(all(&mut tail), ["a"]);
        add(&path, "b\n");
        fs::rename(&path, folder.path().join("log.1")).unwrap();
        add(&path, "c\n");
        assert_eq!(all(&mut tail), ["b", "c"]);
        fs::write(&path, "").unwrap();
        assert!(all(&mut tail).is_empty());
        add(&path, "d\n");
        assert_eq!(all(&mut tail), ["d"]);
    }

    #[test]
    fn what_steers_a_terminal_is_left_out_and_long_lines_come_in_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        add(&path, "\u{1b}[2Jred\t\u{7}x\r\n");
        assert_eq!(Tail::open(&path, 5).unwrap().1, ["[2Jred\tx"]);
        fs::write(&path, "y".repeat(MAX_LINE * 2 + 5)).unwrap();
        let (mut tail, last) = Tail::open(&path, 5).unwrap();
        assert_eq!(last, ["y".repeat(MAX_LINE), "y".repeat(MAX_LINE)]);
        assert_eq!(tail.rest().as_deref(), Some("yyyyy"));
        // No letter is cut, wherever it stands.
        for before in 0..4 {
            let line = "x".repeat(before) + &"é€😀".repeat(20_000);
            fs::write(&path, format!("{line}\n")).unwrap();
            let (_, last) = Tail::open(&path, 5).unwrap();
            assert!(last.len() == 3 && last.concat() == line, "{before}");
        }
    }

    #[test]
    fn a_file_that_may_not_be_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Tail::open(folder.path(), 5).is_err());
    }

    proptest! {
        #[test]
        fn last_lines_are_the_last_lines(
            lines in vec("[a-z]{0,30}", 0..50), wanted in 0usize..60, more in vec("[a-z]{0,9}", 0..9),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("log");
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            add(&path, &text);
            let (mut tail, last) = Tail::open(&path, wanted).unwrap();
            let expected = &lines[lines.len().saturating_sub(wanted)..];
            prop_assert_eq!(&last[..], expected);
            let text: String = more.iter().map(|line| format!("{line}\n")).collect();
            add(&path, &text);
            prop_assert_eq!(all(&mut tail), more);
        }
    }
}
