//! Whom to trust.

use std::{error::Error as StdError, fmt, io, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{
        CertificateDer,
        pem::{self, PemObject},
    },
};

use crate::{error::InspectError, settings::Authorities};

/// TLS with ring.
pub fn config(authorities: &Authorities) -> Result<ClientConfig, InspectError> {
    // What cannot be read of the system's is left out: it may not be needed.
    let system = rustls_native_certs::load_native_certs().certs;
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| InspectError::Usage(format!("no TLS: {error}")))?
        .with_root_certificates(roots(system, authorities)?)
        .with_no_client_auth())
}

/// The certificates to trust: the system's, or Mozilla's where it has none, as in an image that
/// holds nothing but this program; and those that were given.
fn roots(
    system: Vec<CertificateDer<'static>>,
    authorities: &Authorities,
) -> Result<RootCertStore, InspectError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(system);
    if roots.is_empty() {
        roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    }
    if let Some(file) = &authorities.file {
        let what = format!("--ca-file {}", file.display());
        add(&mut roots, &what, CertificateDer::pem_file_iter(file))?;
    }
    // A variable that is there and empty is how some templates leave one out.
    if let Some(text) = authorities.pem.as_deref().filter(|text| !text.trim().is_empty()) {
        let what = "the text of --ca-pem (HUB_CA_PEM)";
        add(&mut roots, what, Ok(CertificateDer::pem_slice_iter(text.as_bytes())))?;
    }
    Ok(roots)
}

fn add(
    roots: &mut RootCertStore,
    what: &str,
    certificates: Result<
        impl Iterator<Item = Result<CertificateDer<'static>, pem::Error>>,
        pem::Error,
    >,
) -> Result<(), InspectError> {
    let wrong =
        |why: &dyn fmt::Display| InspectError::Usage(format!("{what} cannot be used: {why}"));
    let before = roots.len();
    for certificate in certificates.map_err(|error| wrong(&error))? {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    if roots.len() == before { Err(wrong(&"there is no certificate in it")) } else { Ok(()) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mozilla_is_trusted_only_where_the_system_trusts_nobody() {
        let nobody = Authorities::default();
        let compiled_in = roots(vec![], &nobody).unwrap();
        assert!(compiled_in.len() > 100, "{}", compiled_in.len());
        let one = webpki_root_certs::TLS_SERVER_ROOT_CERTS[0].clone();
        assert_eq!(roots(vec![one], &nobody).unwrap().len(), 1);
        let empty = Authorities { pem: Some("\n".to_owned()), ..Authorities::default() };
        assert_eq!(roots(vec![], &empty).unwrap().len(), compiled_in.len());
    }
}
