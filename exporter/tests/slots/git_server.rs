//! A git server over HTTPS: `git http-backend` behind a small server, for one user with a
//! password.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use service::shutdown::Shutdown;
use service::tls::{Acceptor, ServerTls};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// `user:canary-password`
const AUTHORIZATION: &str = "Basic dXNlcjpjYW5hcnktcGFzc3dvcmQ=";

pub(crate) struct GitServer {
    /// Its port, on 127.0.0.1.
    pub(crate) port: u16,
    shutdown: Shutdown,
}

impl GitServer {
    /// Serves every repository below `root`. Writes the certificate, which vouches for itself.
    pub(crate) async fn start(root: &Path, certificate: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(certificate, made.cert.pem()).unwrap();
        let key = certificate.with_extension("key");
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let settings = ServerTls {
            cert_file: certificate.to_owned(),
            key_file: key,
            client_ca_file: None,
            client_auth: Default::default(),
            client_allowed_sans: Vec::new(),
            min_version: Default::default(),
        };
        let acceptor = Acceptor::of(Some(settings)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = Router::new().fallback(backend).with_state(Arc::<Path>::from(root));
        let shutdown = Shutdown::default();
        tokio::spawn(service::serve::serve(
            listener,
            acceptor,
            app,
            Default::default(),
            shutdown.clone(),
        ));
        Self { port, shutdown }
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.shutdown.drain.cancel();
    }
}

async fn backend(State(root): State<Arc<Path>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    if header(header::AUTHORIZATION) != Some(AUTHORIZATION) {
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic")]).into_response();
    }
    // A server that sends people elsewhere is not followed.
    if parts.uri.path().starts_with("/moved") {
        let there = parts.uri.path_and_query().map_or("", |it| it.as_str());
        let there = there.replacen("/moved", "", 1);
        return (StatusCode::FOUND, [(header::LOCATION, there)]).into_response();
    }
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let mut child = tokio::process::Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", &*root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header(header::CONTENT_TYPE).unwrap_or_default())
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header(header::CONTENT_ENCODING).unwrap_or_default())
        .env(
            "GIT_PROTOCOL",
            parts.headers.get("git-protocol").map_or("", |it| it.to_str().unwrap()),
        )
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&body).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap().stdout;
    let end = output.windows(4).position(|part| part == b"\r\n\r\n").unwrap_or(output.len());
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let mut response = Response::builder();
    for line in head.lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        if name == "Status" {
            response = response.status(value[..3].parse::<u16>().unwrap());
        } else {
            response = response.header(name, value);
        }
    }
    let rest = output.get(end + 4..).unwrap_or_default().to_vec();
    response.body(Body::from(Bytes::from(rest))).unwrap()
}
