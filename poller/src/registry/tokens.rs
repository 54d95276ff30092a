//! Tokens for exporters that were made here or given over HTTP: each in a file of its own that
//! its owner alone can read. The database knows the file's name only, so that a copy of the
//! database opens no exporter, and nothing ever shows a token again.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use service::token::{Issuer, Token};
use wire::ServerId;

use crate::owner;

/// Keeps a token for the exporter of a server, and gives the file: on the disk when this returns.
///
/// # Errors
/// The text is no token, or the file cannot be written.
pub fn keep(folder: &Path, server: &ServerId, token: &str) -> io::Result<PathBuf> {
    let good = (1..=512).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic());
    if !good {
        let why = "not a token: 1 to 512 visible ASCII characters are expected";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    // The program that polls may be started in another folder.
    let folder = std::path::absolute(folder)?;
    if !folder.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        owner::as_folder(&folder);
    }
    // Never the name of one that is in use: the old one is good until the new one is known.
    let mut random = [0u8; 4];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let path = folder.join(format!("{server}-{:08x}.token", u32::from_be_bytes(random)));
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
    owner::as_folder(&path);
    let written = file.write_all(format!("{token}\n").as_bytes()).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| File::open(&folder)?.sync_all()) {
        let _ = fs::remove_file(&path);
        return Err(error);
    }
    Ok(path)
}

/// Makes one for an exporter.
///
/// # Errors
/// The operating system gives no random numbers.
pub fn make() -> Result<Token, getrandom::Error> {
    Token::new(Issuer::Exporter)
}

/// What the exporter's configuration needs so that it accepts the token. Holds its hash only.
pub fn block(token: &Token, scopes: &[&str]) -> String {
    let scopes: Vec<String> = scopes.iter().map(|scope| format!("\"{scope}\"")).collect();
    format!(
        "[[tokens]]\nname = \"poller\"\nsha256 = \"{}\"\nscopes = [{}]\n",
        token.hash(),
        scopes.join(", ")
    )
}

/// Removes a token's file, if it is one that [`keep`] made.
pub fn forget(folder: &Path, file: &Path) {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    if file.parent() != Some(folder.as_path()) {
        return;
    }
    if let Err(error) = fs::remove_file(file) {
        tracing::warn!(file = %file.display(), %error, "a token's file was not removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_token_is_its_owners_alone_and_goes_when_it_is_told_to() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("tokens");
        let server: ServerId = "vm1".parse().unwrap();
        let file = keep(&dir, &server, "abc").unwrap();
        assert_ne!(file, keep(&dir, &server, "abc").unwrap());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&file)), (0o700, 0o600));
        assert_eq!(fs::read_to_string(&file).unwrap(), "abc\n");
        for wrong in ["", "a b", "ü", &"x".repeat(513)] {
            assert!(keep(&dir, &server, wrong).is_err(), "{wrong}");
        }
        let other = folder.path().join("other");
        fs::write(&other, "x").unwrap();
        forget(&dir, &other);
        forget(&dir, &file);
        assert!(other.exists() && !file.exists());
    }

    #[test]
    fn the_block_opens_nothing() {
        let token = make().unwrap();
        let block = block(&token, &["read", "control"]);
        assert!(block.contains(&token.hash().to_string()), "{block}");
        assert!(!block.contains(&token.reveal()[5..]), "{block}");
    }
}
