//! Certificates: trusted by being given, never by default.

use std::{fs, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    mirror::{Fault, Mirror, model},
    run::Node,
};

/// A mirror behind TLS: its address, and the authority to trust in PEM.
async fn behind_tls(mirror: &Mirror) -> (String, String) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = names.signed_by(&key, &authority).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let plain = mirror.address;
    tokio::spawn(async move {
        while let Ok((outer, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut outer) = acceptor.accept(outer).await {
                    let mut inner = TcpStream::connect(plain).await.unwrap();
                    let _ = copy_bidirectional(&mut outer, &mut inner).await;
                }
            });
        }
    });
    (format!("https://localhost:{port}"), authority.pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_of_ones_own() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    let (endpoint, pem) = behind_tls(&mirror).await;
    let done = node.fetch(&endpoint, &[]).end().await;
    done.fails(18, &["certificate of localhost", "not trusted (UnknownIssuer)", "--ca-file"]);
    assert_eq!(done.said.lines().count(), 1, "it was tried again: {done:?}");

    let file = node.beside("ca.pem");
    fs::write(&file, pem).unwrap();
    let trusting = ["--ca-file", file.to_str().unwrap()];
    // Nothing that was encrypted goes on in the clear.
    mirror.once("list", Fault::Redirect(format!("{}/x", mirror.endpoint())));
    let done = node.fetch(&endpoint, &trusting).end().await;
    done.fails(16, &["from https to http"]);
    node.fetch(&endpoint, &trusting).end().await.succeeds();
    node.holds(&mirror, &["model.safetensors"]);

    fs::write(&file, "nothing").unwrap();
    let node = Node::new();
    node.fetch(&endpoint, &trusting).end().await.fails(2, &["--ca-file", "no certificate"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_as_text_beside_one_in_a_file() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    let (endpoint, pem) = behind_tls(&mirror).await;
    let (_, of_another) = behind_tls(&mirror).await;
    let file = node.beside("ca.pem");
    fs::write(&file, &of_another).unwrap();
    let file = ["--ca-file", file.to_str().unwrap()];
    let with = |pem: &str| {
        let more = file.iter().copied().chain(["--ca-pem", pem]);
        node.fetch(&endpoint, &more.collect::<Vec<_>>())
    };
    with("").end().await.fails(18, &["not trusted", "HUB_CA_PEM"]);
    with("nothing").end().await.fails(2, &["HUB_CA_PEM", "no certificate"]);
    let both = format!("# of one\n{of_another}\n# of another\n{pem}");
    with(&both).end().await.succeeds();
    node.holds(&mirror, &["model.safetensors"]);
}
