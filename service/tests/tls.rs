//! TLS as clients meet it: who is let in, and certificates that change.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, version};
use service::config::Reader;
use service::serve::{Limits, bind, serve};
use service::shutdown::Shutdown;
use service::tls::{Acceptor, ServerTls, provider};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

struct Authority(CertifiedIssuer<'static, KeyPair>);

struct Issued {
    pem: String,
    der: rustls::pki_types::CertificateDer<'static>,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, names: &[&str], expired: bool) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if expired {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2020, 1, 2);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued { pem: certificate.pem(), der: certificate.der().clone(), key }
    }
}

fn put(folder: &Path, issued: &Issued) {
    std::fs::write(folder.join("key.pem"), issued.key.serialize_pem()).unwrap();
    std::fs::write(folder.join("cert.pem"), &issued.pem).unwrap();
}

fn settings(folder: &Path, more: &str) -> Result<ServerTls, String> {
    let path = folder.join("test.toml");
    let text = format!("[tls]\ncert_file = 'cert.pem'\nkey_file = 'key.pem'\n{more}");
    std::fs::write(&path, text).unwrap();
    let mut reader = Reader::from_file(&path).unwrap();
    let settings = ServerTls::read(&mut reader);
    reader.finish(settings).map_err(|mistakes| mistakes.to_string())
}

struct Scene {
    folder: TempDir,
    authority: Authority,
    address: SocketAddr,
    stop: Shutdown,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.drain.cancel();
    }
}

async fn scene(more: &str, clients: Option<&Authority>) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    put(folder.path(), &authority.issue(&["localhost"], false));
    if let Some(clients) = clients {
        std::fs::write(folder.path().join("clients.pem"), clients.0.pem()).unwrap();
    }
    let tls = Arc::new(Acceptor::new(settings(folder.path(), more).unwrap()).unwrap());
    let listener = bind("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = Shutdown::default();
    let limits = Limits { header_timeout: Duration::from_millis(500), ..Limits::default() };
    let app = Router::new().route("/", get(async || "hello"));
    tokio::spawn(serve(listener, Some(tls), app, limits, stop.clone()));
    Scene { folder, authority, address, stop }
}

impl Scene {
    /// Asks, trusting the server's authority, and shows the answer or why there is none.
    async fn ask(&self, own: Option<&Issued>) -> Result<String, String> {
        self.ask_by(own, &[&version::TLS13, &version::TLS12]).await
    }

    async fn ask_by(
        &self,
        own: Option<&Issued>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Result<String, String> {
        self.ask_with(self.client(own, versions)).await.map(|(text, _)| text)
    }

    /// One that remembers sessions, as rustls has it unless it is told otherwise.
    fn client(
        &self,
        own: Option<&Issued>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.0.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::try_from(own.key.serialize_der()).unwrap();
                builder.with_client_auth_cert(vec![own.der.clone()], key).unwrap()
            }
        })
    }

    /// The answer, and how hands were shaken.
    async fn ask_with(&self, client: Arc<ClientConfig>) -> Result<(String, HandshakeKind), String> {
        let asked = async {
            let tcp = TcpStream::connect(self.address).await?;
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = TlsConnector::from(client).connect(name, tcp).await?;
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            std::io::Result::Ok((text, stream.get_ref().1.handshake_kind().unwrap()))
        };
        let answer = tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap();
        answer.map_err(|error| error.to_string())
    }
}

#[tokio::test]
async fn an_answer_comes_over_both_versions_and_plain_http_is_told_apart() {
    let scene = scene("", None).await;
    for versions in [&[&version::TLS13][..], &[&version::TLS12][..]] {
        assert!(scene.ask_by(None, versions).await.unwrap().ends_with("hello"));
    }
    let mut plain = TcpStream::connect(scene.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut text = String::new();
    plain.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 400") && text.contains("https://"), "{text}");
}

#[tokio::test]
async fn an_old_version_is_refused_when_told_so() {
    let scene = scene("min_version = '1.3'", None).await;
    assert!(scene.ask_by(None, &[&version::TLS12]).await.is_err());
    assert!(scene.ask_by(None, &[&version::TLS13]).await.is_ok());
}

#[tokio::test]
async fn who_says_nothing_is_cut_off() {
    let scene = scene("", None).await;
    let mut silent = TcpStream::connect(scene.address).await.unwrap();
    let mut rest = Vec::new();
    let read = silent.read_to_end(&mut rest);
    tokio::time::timeout(Duration::from_secs(20), read).await.unwrap().unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn only_clients_with_an_allowed_name_of_the_right_authority_get_in() {
    let clients = Authority::new();
    let more = "client_ca_file = 'clients.pem'\nclient_allowed_sans = ['Poller.example', '::0:1']";
    let scene = scene(more, Some(&clients)).await;
    let asks = async |own: Option<&Issued>| scene.ask(own).await;
    assert!(asks(Some(&clients.issue(&["poller.example"], false))).await.is_ok());
    assert!(asks(Some(&clients.issue(&["::1"], false))).await.is_ok());
    assert!(asks(None).await.is_err(), "without a certificate");
    assert!(asks(Some(&clients.issue(&["other.example"], false))).await.is_err(), "another name");
    assert!(asks(Some(&clients.issue(&["*.example"], false))).await.is_err(), "a wildcard");
    assert!(asks(Some(&clients.issue(&["poller.example"], true))).await.is_err(), "expired");
    let foreign = Authority::new().issue(&["poller.example"], false);
    assert!(asks(Some(&foreign)).await.is_err(), "of another authority");
}

/// A session that is taken up again shows no certificate, and so none that has expired.
#[tokio::test]
async fn clients_show_their_certificate_at_each_connection() {
    let clients = Authority::new();
    let own = clients.issue(&["poller.example"], false);
    let mutual = scene("client_ca_file = 'clients.pem'", Some(&clients)).await;
    let open = scene("", None).await;
    for version in [&version::TLS13, &version::TLS12] {
        let of = async |scene: &Scene, own: Option<&Issued>| {
            let client = scene.client(own, &[version]);
            let mut kinds = Vec::new();
            for _ in 0..3 {
                kinds.push(scene.ask_with(Arc::clone(&client)).await.unwrap().1);
            }
            kinds
        };
        let full = |kind: &HandshakeKind| *kind != HandshakeKind::Resumed;
        assert!(of(&mutual, Some(&own)).await.iter().all(full));
        // Nothing is shown here that could expire, and the client would take a session up.
        assert!(!of(&open, None).await.iter().all(full));
    }
}

#[tokio::test]
async fn where_a_certificate_is_only_asked_for_none_is_needed_but_a_bad_one_is_refused() {
    let clients = Authority::new();
    let more = "client_ca_file = 'clients.pem'\nclient_auth = 'request'";
    let scene = scene(more, Some(&clients)).await;
    assert!(scene.ask(None).await.is_ok());
    assert!(scene.ask(Some(&clients.issue(&["a.example"], false))).await.is_ok());
    let foreign = Authority::new().issue(&["a.example"], false);
    assert!(scene.ask(Some(&foreign)).await.is_err());
}

#[tokio::test]
async fn a_certificate_that_changes_is_served_without_a_restart() {
    let scene = scene("", None).await;
    assert!(scene.ask(None).await.is_ok());
    // One that the client refuses shows which is served.
    put(scene.folder.path(), &scene.authority.issue(&["elsewhere"], false));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while scene.ask(None).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "the old one is still served");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn what_is_wrong_is_told_by_key() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = |more: &str| settings(folder.path(), more).unwrap_err();
    let text = wrong("client_auth = 'always'\nmin_version = '1.1'");
    for part in [
        "tls.client_auth",
        "\"always\"",
        "tls.min_version",
        "1.2 or 1.3",
        "tls.cert_file",
        "tls.key_file",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let authority = Authority::new();
    put(folder.path(), &authority.issue(&["localhost"], false));
    assert!(settings(folder.path(), "").is_ok());
    let text = wrong("client_auth = 'require'");
    assert!(text.contains("needs a client_ca_file"), "{text}");
    let other = authority.issue(&["localhost"], false);
    std::fs::write(folder.path().join("key.pem"), other.key.serialize_pem()).unwrap();
    let text = wrong("");
    assert!(text.contains("tls.cert_file") && text.contains("its key"), "{text}");
}
