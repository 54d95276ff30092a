//! TLS by rustls, with ring for the arithmetic: certificates and keys from PEM files that are
//! read again when they change, clients asked for certificates, and what a certificate says.

pub mod certificate;
pub mod files;
pub mod server;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use server::{Acceptor, ServerTls};

/// Makes [`provider`] the process' own, for libraries that look for one. May be called again.
pub fn install() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The arithmetic: one for both programs and both directions.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
