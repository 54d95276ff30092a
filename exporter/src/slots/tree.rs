//! Folders of releases: what they hold, how big they are.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// More entries than this are refused: a repository of them would stop the host.
const MAX_ENTRIES: usize = 2_000_000;

/// Why a folder is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A link leads out.
    #[error("{0:?} is a link that leads out of the release")]
    Link(String),
    /// Something that is no file, folder or link.
    #[error("{0:?} is neither a file nor a folder nor a link")]
    Odd(String),
    /// Too big.
    #[error("the release is bigger than {0} bytes ([slots] release_limit)")]
    Size(u64),
    /// Too many.
    #[error("the release has more than {MAX_ENTRIES} files")]
    Entries,
    /// It cannot be read.
    #[error("the release cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Sees that no link leads out of `root`, and that it holds at most `limit` bytes.
///
/// # Errors
/// See [`Refused`].
pub fn check(root: &Path, limit: u64) -> Result<u64, Refused> {
    let root = root.canonicalize()?;
    let (mut open, mut bytes, mut entries) = (vec![root.clone()], 0u64, 0usize);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            entries += 1;
            if entries > MAX_ENTRIES {
                return Err(Refused::Entries);
            }
            let path = entry.path();
            let shown = || path.strip_prefix(&root).unwrap_or(&path).display().to_string();
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_symlink() {
                if leads_out(&root, &folder, &path)? {
                    return Err(Refused::Link(shown()));
                }
            } else if kind.is_file() {
                // Hard links to a shared store (pnpm) count nevertheless: a bound, no account.
                bytes = bytes.saturating_add(entry.metadata()?.len());
                if bytes > limit {
                    return Err(Refused::Size(limit));
                }
            } else {
                return Err(Refused::Odd(shown()));
            }
        }
    }
    Ok(bytes)
}

fn leads_out(root: &Path, folder: &Path, link: &Path) -> io::Result<bool> {
    if let Ok(real) = link.canonicalize() {
        return Ok(!real.starts_with(root));
    }
    // Nothing is there yet: where would it be?
    let target = fs::read_link(link)?;
    let mut place: PathBuf = folder.to_owned();
    for part in target.components() {
        match part {
            Component::Normal(name) => place.push(name),
            Component::ParentDir => {
                place.pop();
            }
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => place = PathBuf::from("/"),
        }
        if !place.starts_with(root) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_within_and_size_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("release");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/file"), [0; 100]).unwrap();
        symlink("../file", root.join("a/b/good")).unwrap();
        symlink("not-there-yet", root.join("dangling")).unwrap();
        assert_eq!(check(&root, 1000).unwrap(), 100);
        assert!(matches!(check(&root, 99), Err(Refused::Size(99))));
        for target in ["/etc/passwd", "..", "../../x", "a/../../x", "/nowhere", "a/b/../../../y"] {
            let link = root.join("link");
            symlink(target, &link).unwrap();
            assert!(matches!(check(&root, 1000), Err(Refused::Link(_))), "{target}");
            fs::remove_file(&link).unwrap();
        }
        // By way of a link that is itself within.
        symlink("a/b", root.join("in")).unwrap();
        symlink("in/../../../out", root.join("link")).unwrap();
        assert!(matches!(check(&root, 1000), Err(Refused::Link(_))));
    }
}
