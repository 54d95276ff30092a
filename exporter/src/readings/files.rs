//! Files of `/proc/<pid>`, kept open: a read then costs half of what it costs with the opening,
//! and a file that is open belongs to one process for good. When that process is gone the read
//! fails, whoever has its number by then.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::process::{Resource, getrlimit};

/// The longest that is read at once: `stat` is a line, `children` some numbers.
const BUFFER: usize = 4096;
/// Open files of one process.
const FILES: u64 = 3;

/// Open files of one process.
#[derive(Debug)]
pub(super) struct Files {
    stat: File,
    /// Absent where the kernel has no such file.
    children: Option<File>,
    /// Absent when not permitted to look.
    fds: Option<File>,
}

impl Files {
    /// Of the process that has this number now.
    fn open(pid: u32) -> io::Result<Self> {
        let directory = rustix::fs::open(
            format!("/proc/{pid}"),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let open = |name: &str, flags: OFlags| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | flags;
            rustix::fs::openat(&directory, name, flags, Mode::empty()).map(File::from)
        };
        Ok(Self {
            stat: open("stat", OFlags::empty())?,
            children: open(&format!("task/{pid}/children"), OFlags::empty()).ok(),
            fds: open("fd", OFlags::DIRECTORY).ok(),
        })
    }

    /// The line of `stat`.
    fn stat<R>(&self, take: impl FnOnce(&[u8]) -> R) -> io::Result<R> {
        let mut buffer = [0; BUFFER];
        let read = self.stat.read_at(&mut buffer, 0)?;
        Ok(take(buffer.get(..read).unwrap_or_default()))
    }

    /// Numbers of the children of the first thread.
    pub(super) fn children(&self) -> Vec<u32> {
        let Some(file) = &self.children else { return Vec::new() };
        let mut buffer = [0; BUFFER];
        let Ok(read) = file.read_at(&mut buffer, 0) else { return Vec::new() };
        let mut text = buffer.get(..read).unwrap_or_default().to_vec();
        while let Ok(read @ 1..) = file.read_at(&mut buffer, text.len() as u64) {
            text.extend(buffer.get(..read).unwrap_or_default());
        }
        super::tree::numbers(&text)
    }

    /// How many descriptors are open; `None` when not permitted to look.
    pub(super) fn open_fds(&self, pid: u32) -> Option<u32> {
        let directory = self.fds.as_ref()?;
        // Since Linux 6.2 the directory's size is their number; before, it is 0.
        let size = rustix::fs::statx(directory, c"", AtFlags::EMPTY_PATH, StatxFlags::SIZE)
            .map_or(0, |stat| stat.stx_size);
        match u32::try_from(size) {
            Ok(count @ 1..) => Some(count),
            _ => Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u32),
        }
    }
}

/// Files of many processes.
#[derive(Debug)]
pub(super) struct Kept {
    files: HashMap<u32, Files>,
    most: usize,
}

impl Default for Kept {
    fn default() -> Self {
        // A quarter of what this program may open; the rest is for connections. Processes
        // beyond that are read by opening anew each time.
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
        let most = usize::try_from(limit / 4 / FILES).unwrap_or(0).min(2048);
        Self { files: HashMap::new(), most }
    }
}

impl Kept {
    /// Looks at the process that has this number now: `take` is given the line of its `stat`
    /// and the other files. `None` when there is none, or when `take` finds that it has ended.
    pub(super) fn look<R>(
        &mut self,
        pid: u32,
        mut take: impl FnMut(&[u8], &Files) -> Option<R>,
    ) -> Option<R> {
        if let Some(files) = self.files.get(&pid) {
            if let Ok(found @ Some(_)) = files.stat(|line| take(line, files)) {
                return found;
            }
            self.files.remove(&pid);
        }
        let files = Files::open(pid).ok()?;
        let found = files.stat(|line| take(line, &files)).ok()??;
        if self.files.len() < self.most {
            self.files.insert(pid, files);
        }
        Some(found)
    }

    /// Closes the files of processes that have ended, and of those that are not `wanted`.
    pub(super) fn retain(&mut self, mut wanted: impl FnMut(u32) -> bool) {
        self.files.retain(|pid, files| wanted(*pid) && files.stat(|_| ()).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ended_is_not_taken_for_one_that_runs() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut kept = Kept::default();
        let line = |line: &[u8], files: &Files| {
            Some((String::from_utf8_lossy(line).into_owned(), files.open_fds(0).is_some()))
        };
        let (first, _) = kept.look(child.id(), line).unwrap();
        assert!(first.starts_with(&format!("{} (sleep)", child.id())), "{first}");
        assert_eq!(kept.files.len(), 1);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(kept.look(child.id(), line).is_none());
        assert!(kept.files.is_empty());
    }

    #[test]
    fn descriptors_are_counted_as_they_are_opened() {
        let own = std::process::id();
        let mut kept = Kept::default();
        let listed = || fs::read_dir("/proc/self/fd").unwrap().count() as u32;
        let count = |kept: &mut Kept| kept.look(own, |_, files| files.open_fds(own)).unwrap();
        // Other tests of this program open and close files meanwhile.
        let agrees = (0..1000).any(|_| {
            let before = count(&mut kept);
            before > 2 && listed() == before + 1
        });
        assert!(agrees);
    }
}
