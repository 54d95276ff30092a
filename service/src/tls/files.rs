//! PEM files: read with words for what is wrong, and read again when they change.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Certificates and keys are some kilobytes; bundles of authorities some hundred.
const LARGEST: u64 = 4 << 20;
/// How often files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    crate::files::read(path, LARGEST).map_err(|error| format!("{shown} {error}: PEM expected"))
}

/// The certificates of a file, in its order.
///
/// # Errors
/// The file cannot be read, or holds none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| format!("{} is not PEM: {error}", path.display()))?;
    if found.is_empty() {
        return Err(format!("{} holds no certificate in PEM", path.display()));
    }
    Ok(found)
}

/// The private key of a file; its content is never quoted.
///
/// # Errors
/// The file cannot be read, or holds none.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| {
        format!("{} holds no private key in PEM (PKCS#8, PKCS#1 or SEC1)", path.display())
    })
}

/// The certificates of a file as authorities to trust.
///
/// # Errors
/// The file cannot be read, or one of them cannot be an authority.
pub fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| {
            format!("{} holds a certificate that cannot be trusted: {error}", path.display())
        })?;
    }
    Ok(roots)
}

/// Tells one state of a file from another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp(Option<[i128; 6]>);

impl Stamp {
    fn of(path: &Path) -> Self {
        let about = std::fs::metadata(path).ok();
        // What owner and rights do to it changes the second pair only.
        Self(about.map(|it| {
            let (changed, touched) = ((it.mtime(), it.mtime_nsec()), (it.ctime(), it.ctime_nsec()));
            [
                changed.0.into(),
                changed.1.into(),
                touched.0.into(),
                touched.1.into(),
                it.len().into(),
                it.ino().into(),
            ]
        }))
    }
}

/// Something made of files, made anew when they change. Files that are wrong, as they are
/// between the writing of a certificate and of its key, change nothing until they are right.
pub struct Watched<T> {
    paths: Vec<PathBuf>,
    make: Box<dyn Fn() -> Result<T, String> + Send + Sync>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    stamps: Vec<Stamp>,
    looked: Instant,
    mistake: Option<String>,
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl<T> Watched<T> {
    /// `make` reads the files at `paths`.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn new(
        paths: Vec<PathBuf>,
        make: impl Fn() -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let stamps = paths.iter().map(|path| Stamp::of(path)).collect();
        let value = Arc::new(make()?);
        let state = State { value, stamps, looked: Instant::now(), mistake: None };
        Ok(Self { paths, make: Box::new(make), state: Mutex::new(state) })
    }

    /// What the files say. They are looked at once a second at most, and only when asked for.
    pub fn get(&self) -> Arc<T> {
        self.look(LOOK)
    }

    /// Why the files as they are now are not used; `None` when they are.
    pub fn mistake(&self) -> Option<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).mistake.clone()
    }

    fn look(&self, every: Duration) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() < every {
            return Arc::clone(&state.value);
        }
        state.looked = Instant::now();
        let stamps: Vec<_> = self.paths.iter().map(|path| Stamp::of(path)).collect();
        // What could not be read may be readable now, whatever was in the way.
        if stamps != state.stamps || state.mistake.is_some() {
            state.stamps = stamps;
            match (self.make)() {
                Ok(value) => {
                    state.value = Arc::new(value);
                    state.mistake = None;
                    tracing::info!(files = ?self.paths, "certificates were read again");
                }
                Err(mistake) => {
                    if state.mistake.as_ref() != Some(&mistake) {
                        tracing::error!("certificates that changed are not used: {mistake}");
                    }
                    state.mistake = Some(mistake);
                }
            }
        }
        Arc::clone(&state.value)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn what_changes_is_read_again_and_what_is_wrong_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        std::fs::write(&path, "1").unwrap();
        let from = path.clone();
        let watched = Watched::new(vec![path.clone()], move || {
            let text = std::fs::read_to_string(&from).map_err(|error| error.to_string())?;
            text.parse::<u32>().map_err(|error| error.to_string())
        })
        .unwrap();
        let now = || *watched.look(Duration::ZERO);
        assert_eq!(now(), 1);
        std::fs::write(&path, "two").unwrap();
        assert_eq!(now(), 1);
        assert!(watched.mistake().unwrap().contains("invalid digit"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(now(), 1);
        std::fs::write(&path, "33").unwrap();
        assert_eq!(now(), 33);
        assert_eq!(watched.mistake(), None);
    }

    #[test]
    fn what_could_not_be_read_is_tried_again_though_nothing_about_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        std::fs::write(&path, "1").unwrap();
        let (from, away) = (path.clone(), Arc::new(AtomicBool::new(false)));
        let is_away = Arc::clone(&away);
        let watched = Watched::new(vec![path.clone()], move || {
            if is_away.load(Ordering::Relaxed) {
                return Err("too many open files".to_owned());
            }
            std::fs::read_to_string(&from).map_err(|error| error.to_string())
        })
        .unwrap();
        let now = || watched.look(Duration::ZERO).to_string();
        away.store(true, Ordering::Relaxed);
        std::fs::write(&path, "two").unwrap();
        assert_eq!((now(), now()), ("1".to_owned(), "1".to_owned()));
        away.store(false, Ordering::Relaxed);
        assert_eq!(now(), "two");
        assert_eq!(watched.mistake(), None);
        // Rights are what makes a file readable, and no part of what is in it.
        let before = Stamp::of(&path);
        std::thread::sleep(Duration::from_millis(20));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert_ne!(Stamp::of(&path), before);
    }
}
