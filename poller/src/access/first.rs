//! The first admin: a program that knows nobody prints a link, good once and for half an hour,
//! at which whoever can read its log says their name and password. Where PM2 runs it, those who
//! read its log by an exporter are more than may be admins, and the link is put into a file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use service::token::TokenHash;
use tokio::time::Instant;

use super::session::random;
use super::{Access, lock};

/// How long the link is good, in minutes.
const FIRST_MINUTES: u64 = 30;
/// What PM2 sets for what it runs.
const UNDER_PM2: &str = "pm_id";

/// What opens the way, as its hash.
#[derive(Debug)]
pub(super) struct First {
    key: TokenHash,
    until: Instant,
}

impl First {
    fn fits(&self, key: &str) -> bool {
        self.until > Instant::now() && self.key.matches(&TokenHash::of(key))
    }
}

/// Tells the link that has the key; `base` is the program's own address.
pub fn tell_first(key: &str, base: &str, database: &Path) {
    let (link, minutes) = (format!("{base}/login/first?key={key}"), FIRST_MINUTES);
    if std::env::var_os(UNDER_PM2).is_none() {
        tracing::warn!(
            link,
            minutes,
            "there is neither user nor token: make the first admin at this link, once, or by \
             'pm2-poller user add'"
        );
        return;
    }
    match keep(&link, database) {
        Ok(file) => tracing::warn!(
            file = %file.display(), minutes,
            "there is neither user nor token: make the first admin at the link in this file, once, \
             or by 'pm2-poller user add'"
        ),
        Err(error) => tracing::warn!(
            %error,
            "there is neither user nor token, and the first admin's link cannot be written beside the \
             database: use 'pm2-poller user add'"
        ),
    }
}

/// Writes the link beside the database, for the owner alone.
fn keep(link: &str, database: &Path) -> io::Result<PathBuf> {
    let mut file = database.to_owned().into_os_string();
    file.push(".first-admin");
    let file = PathBuf::from(file);
    match fs::remove_file(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut new = File::options().write(true).create_new(true).mode(0o600).open(&file)?;
    writeln!(new, "{link}")?;
    Ok(file)
}

impl Access {
    /// A new key for the first admin, where there is neither user nor token.
    pub fn open_first(&self) -> Option<String> {
        if self.known().any {
            return None;
        }
        let key = random::<20>().inspect_err(|error| {
            tracing::error!(%error, "no random numbers for the first admin's link");
        });
        let key = key.ok()?;
        let until = Instant::now() + Duration::from_secs(FIRST_MINUTES * 60);
        *lock(&self.first) = Some(First { key: TokenHash::of(&key), until });
        Some(key)
    }

    /// Whether that is the key, and still good.
    pub fn is_first(&self, key: &str) -> bool {
        !self.known().any && lock(&self.first).as_ref().is_some_and(|first| first.fits(key))
    }

    /// Takes the key: whoever comes second finds none.
    pub fn take_first(&self, key: &str) -> bool {
        !self.known().any && lock(&self.first).take_if(|first| first.fits(key)).is_some()
    }
}
