//! Peers with https URLs.

use std::sync::Arc;

use etched_proto::raftpb::MessageType;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::member::{Event, Member, message};

fn certificate() -> rcgen::CertifiedKey<rcgen::KeyPair> {
    rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap()
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn client(trusted: &rcgen::Certificate) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.der().clone()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_are_dialed_with_the_certificates_of_the_moment() {
    let served = certificate();
    let (right, wrong) = (client(&served.cert), client(&certificate().cert));
    let key = PrivateKeyDer::try_from(served.signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![served.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let trusted = Arc::new(parking_lot::Mutex::new(wrong));
    let now = Arc::clone(&trusted);
    let mut one = Member::start_with(1, |config| {
        config.dialer.tls = Some(Arc::new(move || Ok(Arc::clone(&now.lock()))));
    })
    .await;
    one.transport.add_peer(2, &[url]).unwrap();
    one.transport.send([message(MessageType::MsgVote, 1, 2)]);
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let (stream, _) = listener.accept().await.unwrap();
    assert!(acceptor.accept(stream).await.is_err(), "a certificate that is not trusted");
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = [0; 5];
            if stream.read_exact(&mut head).await.is_ok() && &head == b"POST " {
                return;
            }
        }
    });
    one.wait_for(&Event::Unreachable(2)).await;
    *trusted.lock() = right;
    one.transport.send([message(MessageType::MsgVote, 1, 2)]);
    serving.await.unwrap();
}

#[tokio::test]
async fn without_certificates_a_peer_with_tls_cannot_be_reached() {
    let mut one = Member::start(1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    one.transport.add_peer(2, &[url]).unwrap();
    one.transport.send([message(MessageType::MsgVote, 1, 2)]);
    one.wait_for(&Event::Unreachable(2)).await;
}
