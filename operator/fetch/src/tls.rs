//! Whom to trust.

use std::{error::Error as StdError, fmt, io, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::error::Error;

/// TLS with ring, and whether there is any authority to trust.
pub fn config(ca_file: Option<&Path>) -> Result<(ClientConfig, bool), Error> {
    let roots = roots(ca_file)?;
    let trusts_somebody = !roots.is_empty();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Usage(format!("no TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((config, trusts_somebody))
}

/// The certificates to trust: the system's, and those in `file`.
fn roots(file: Option<&Path>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    // What cannot be read of the system's is left out: it may not be needed.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = file {
        let wrong = |why: &dyn fmt::Display| {
            Error::Usage(format!("--ca-file {} cannot be used: {why}", file.display()))
        };
        let before = roots.len();
        for certificate in CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))? {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
        if roots.len() == before {
            return Err(wrong(&"there is no certificate in it"));
        }
    }
    Ok(roots)
}

/// Why a certificate is not trusted, if that is what is wrong.
pub fn untrusted(error: &reqwest::Error) -> Option<String> {
    let mut next: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(error) = next {
        // An io::Error hides what it wraps from `source`.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = error
            .downcast_ref::<rustls::Error>()
            .or_else(|| inner.and_then(|inner| inner.downcast_ref()));
        if let Some(rustls::Error::InvalidCertificate(why)) = tls {
            return Some(format!("{why:?}").chars().take(200).collect());
        }
        next = inner.map(|inner| inner as &(dyn StdError + 'static)).or_else(|| error.source());
    }
    None
}
