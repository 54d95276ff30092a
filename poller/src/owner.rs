//! Who owns files that are made. The command line is often used by root (`sudo`), and the service runs as
//! somebody else, who could not read what root made for its owner alone.

use std::fs::metadata;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

/// Gives what root made in somebody else's folder to the owner of the folder.
pub(crate) fn as_folder(path: &Path) {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    let (Ok(folder), Ok(made)) = (metadata(folder.unwrap_or(Path::new("."))), metadata(path))
    else {
        return;
    };
    if made.uid() != 0 || folder.uid() == 0 {
        return;
    }
    if let Err(error) = chown(path, Some(folder.uid()), Some(folder.gid())) {
        tracing::warn!(path = %path.display(), %error, "it stays root's");
    }
}
