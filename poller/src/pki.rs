//! A small authority: one self-signed certificate, and those it vouches for. Files are PEM,
//! keys are ECDSA P-256 and readable by their owner only.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// What was asked for is not allowed.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read or written, or is something else.
    #[error("{0}")]
    File(String),
}

/// Two files that were made.
#[derive(Debug)]
pub struct Written {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// An authority in a folder: `ca.pem` and `ca-key.pem`.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes one, good for `days`.
    ///
    /// # Errors
    /// The folder has one, or cannot be written.
    pub fn create(folder: &Path, name: &str, days: u16) -> Result<Written, PkiError> {
        let mut params = params(Vec::new(), name, days)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(internal)?;
        let certificate = params.self_signed(&key).map_err(internal)?;
        std::fs::create_dir_all(folder)
            .map_err(|error| PkiError::File(format!("{}: {error}", folder.display())))?;
        write(folder, "ca", &certificate.pem(), &key)
    }

    /// The one in a folder.
    ///
    /// # Errors
    /// It is not there or cannot be used.
    pub fn open(folder: &Path) -> Result<Self, PkiError> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path).map_err(|error| {
                PkiError::File(format!(
                    "{} cannot be read: {error}; 'pki init' makes an authority",
                    path.display()
                ))
            })
        };
        let wrong = |error: rcgen::Error| {
            PkiError::File(format!("{} holds no authority: {error}", folder.display()))
        };
        let (cert, key) = (read("ca.pem")?, read("ca-key.pem")?);
        let key = KeyPair::from_pem(&key).map_err(wrong)?;
        let issuer = Issuer::from_ca_cert_pem(&cert, key).map_err(wrong)?;
        Ok(Self { folder: folder.to_owned(), issuer })
    }

    /// Makes a certificate for `names`, or for `name` itself, good for `days`, and for serving as
    /// well as asking.
    ///
    /// # Errors
    /// A name is none, the files are there already or cannot be written.
    pub fn issue(&self, name: &str, names: &[String], days: u16) -> Result<Written, PkiError> {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        let good = (1..=64).contains(&name.len())
            && !name.starts_with('.')
            && name.chars().all(plain)
            && !["ca", "ca-key"].contains(&name);
        if !good {
            return Err(PkiError::Usage(format!(
                "NAME: {name:?} is not allowed: 1 to 64 letters, digits, '-', '_', '.'; not ca"
            )));
        }
        let names = if names.is_empty() { vec![name.to_owned()] } else { names.to_vec() };
        for name in &names {
            if rustls::pki_types::ServerName::try_from(name.as_str()).is_err() {
                return Err(PkiError::Usage(format!(
                    "--san: {name:?} is neither a host name nor an IP address"
                )));
            }
        }
        let mut params = params(names, name, days)?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().map_err(internal)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(internal)?;
        write(&self.folder, name, &certificate.pem(), &key)
    }
}

fn internal(error: rcgen::Error) -> PkiError {
    PkiError::File(format!("no certificate can be made: {error}"))
}

/// Good from yesterday, since clocks differ, for so many days.
fn params(names: Vec<String>, name: &str, days: u16) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(names).map_err(internal)?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    let day = |offset: i64| {
        let date = Timestamp::now()
            .to_zoned(TimeZone::UTC)
            .date()
            .saturating_add(Span::new().days(offset));
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        rcgen::date_time_ymd(i32::from(date.year()), month, day)
    };
    params.not_before = day(-1);
    params.not_after = day(i64::from(days) + 1);
    Ok(params)
}

fn write(folder: &Path, name: &str, cert: &str, key: &KeyPair) -> Result<Written, PkiError> {
    let written = Written {
        cert: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}-key.pem")),
    };
    for path in [&written.cert, &written.key] {
        if path.exists() {
            return Err(PkiError::Usage(format!(
                "{} is there already: move it away first",
                path.display()
            )));
        }
    }
    for (path, text, mode) in
        [(&written.key, key.serialize_pem(), 0o600), (&written.cert, cert.to_owned(), 0o644)]
    {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .map_err(|error| PkiError::File(format!("{}: {error}", path.display())))?;
    }
    Ok(written)
}
