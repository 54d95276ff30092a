//! Listening: who may be listened to, with which deadlines and bounds, and how it ends.

mod watchful;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tower::ServiceExt;
use watchful::Watchful;

use crate::limits::{
    Allowance, Connections, Doing, Followed, Network, Place, Reach, Timed, Waits, client,
};
use crate::problem::ProblemResponse;
use crate::shutdown::Shutdown;
use crate::tls::Acceptor;
use crate::{Exit, Failure};

/// Bounds of a listener.
#[derive(Clone, Debug)]
pub struct Limits {
    /// From the first byte of a request to the end of its headers.
    pub header_timeout: Duration,
    /// How long a kept-open connection may stay quiet.
    pub idle_timeout: Duration,
    /// From the end of the headers to the end of the body, once it is waited for.
    pub body_timeout: Duration,
    /// How long an answer may wait for its reader to take some of it.
    pub stall_timeout: Duration,
    /// Connections at a time, of all and of an address: one more displaces one that is awaited or
    /// waits, or is closed at once.
    pub connections: usize,
    /// Of one address.
    pub connections_of_address: usize,
    /// A request that is not answered for so long waits for something to happen, and gives way.
    pub waits_after: Duration,
    /// Requests of an address in a second, and four times as many at once. This machine's own
    /// programs are not counted.
    pub requests: Option<u32>,
    /// Proxies that are believed when they say who asks.
    pub proxies: Vec<Network>,
    /// How long a stop waits for requests under way.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(120),
            connections: 4096,
            connections_of_address: 512,
            waits_after: Duration::from_secs(1),
            requests: Some(500),
            proxies: Vec::new(),
            drain: Duration::from_secs(4),
        }
    }
}

impl Limits {
    /// Those of the settings.
    pub fn of(reach: &Reach) -> Self {
        Self {
            connections: reach.connections,
            connections_of_address: reach.connections_of_address,
            requests: reach.requests,
            proxies: reach.proxies.clone(),
            ..Self::default()
        }
    }
}

/// How long the address may still be held for one that was killed: a program that it was just
/// starting has its sockets until it runs.
const PREDECESSOR: Duration = Duration::from_secs(1);

/// Binds `address`, refusing to be reachable beyond loopback by people nobody checks.
///
/// # Errors
/// The address is beyond loopback and there is no credential, or it cannot be bound.
pub async fn bind(address: SocketAddr, has_credentials: bool) -> Result<TcpListener, Failure> {
    if !address.ip().is_loopback() && !has_credentials {
        return Err(Failure::new(
            Exit::Configuration,
            anyhow::anyhow!(
                "listen: {address} is reachable from outside, and there is no credential: \
                 create one with 'token create', or listen on 127.0.0.1"
            ),
        ));
    }
    let end = Instant::now() + PREDECESSOR;
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < end => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            bound => {
                return bound.map_err(|error| {
                    let what = anyhow::anyhow!("listen: {address} cannot be used: {error}");
                    Failure::new(Exit::Listen, what)
                });
            }
        }
    }
}

/// An extension of requests that came over TLS.
#[derive(Clone, Copy, Debug)]
pub struct Encrypted;

/// Serves `app` until `shutdown`, over TLS where there is an acceptor. Requests under way get
/// [`Limits::drain`] to end. Handlers find the client's address as [`ConnectInfo<SocketAddr>`],
/// [`Waits`], and [`Encrypted`] where it is so.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Acceptor>>,
    app: Router,
    limits: Limits,
    shutdown: Shutdown,
) {
    let most = crate::limits::connections(limits.connections);
    if most < limits.connections {
        tracing::info!(
            most,
            wanted = limits.connections,
            "so few files may be open that there are fewer connections than configured"
        );
    }
    let places = Connections::new(
        most,
        limits.connections_of_address,
        limits.waits_after,
        limits.proxies.clone(),
    );
    let gate = Arc::new(Gate {
        requests: limits
            .requests
            .map(|a_second| Allowance::new(4 * a_second, Duration::from_secs(1) / a_second)),
        limits: limits.clone(),
    });
    let graceful = GracefulShutdown::new();
    let tasks = tokio_util::task::TaskTracker::new();
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.idle_timeout).max_buf_size(64 * 1024);
    let mut told: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            () = shutdown.drain.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: the waiting connections will not go away by
                // asking again at once.
                if told.is_none_or(|told| told.elapsed() > Duration::from_secs(1)) {
                    tracing::warn!(%error, "cannot accept connections");
                    told = Some(Instant::now());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(place) = places.place(peer.ip()) else {
            tracing::debug!(%peer, "too many connections");
            continue;
        };
        // Answers are small and complete: waiting to fill a packet only adds delay.
        let _ = stream.set_nodelay(true);
        let (app, http, tls) = (app.clone(), http.clone(), tls.clone());
        let gate = Arc::clone(&gate);
        let watcher = graceful.watcher();
        let ending = shutdown.drain.clone();
        tasks.spawn(async move {
            let ended = match tls {
                None => connection(stream, peer, false, &http, app, &gate, &place, watcher).await,
                Some(tls) => {
                    let within = gate.limits.header_timeout;
                    let shaken = tokio::time::timeout(within, shake(&tls, stream));
                    let shaken = tokio::select! {
                        () = ending.cancelled() => return,
                        () = place.over.cancelled() => return,
                        shaken = shaken => shaken.unwrap_or(Err(io::ErrorKind::TimedOut.into())),
                    };
                    match shaken {
                        Ok(stream) => {
                            connection(stream, peer, true, &http, app, &gate, &place, watcher).await
                        }
                        Err(error) => Err(error.into()),
                    }
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%peer, error, "connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    tasks.close();
    let drained = async {
        graceful.shutdown().await;
        tasks.wait().await;
    };
    tokio::select! {
        () = drained => {}
        () = tokio::time::sleep(limits.drain) => tracing::warn!("requests were cut off"),
        () = shutdown.abort.cancelled() => {}
    }
}

/// What an HTTPS port says to who speaks plain HTTP.
pub const SPEAKS_TLS: &str = "This is an HTTPS port: ask by https://\n";

/// Shakes hands. Who speaks plain HTTP is told so in plain HTTP, as browsers and curl would
/// otherwise say only that something is wrong.
async fn shake(tls: &Acceptor, mut stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    // RFC 8446, 5.1: a handshake begins with the byte 22.
    const HANDSHAKE: u8 = 22;
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE {
        let words = SPEAKS_TLS;
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{words}",
            words.len()
        );
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        return Err(io::Error::other("it speaks no TLS"));
    }
    tls.accept(stream).await
}

/// What every request passes.
struct Gate {
    requests: Option<Allowance>,
    limits: Limits,
}

impl Gate {
    /// Takes one request of an address.
    fn pass(&self, address: std::net::IpAddr) -> Result<(), Duration> {
        match &self.requests {
            Some(requests) if !address.is_loopback() => requests.take(address),
            _ => Ok(()),
        }
    }
}

fn too_many(wait: Duration) -> Response {
    let detail = "too many requests from this address: see Retry-After";
    let problem = ProblemResponse::new(StatusCode::TOO_MANY_REQUESTS, "too_many", detail);
    let mut response = problem.into_response();
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn late_body(within: Duration) -> Response {
    let detail = format!("the body was not there within {} s", within.as_secs());
    ProblemResponse::new(StatusCode::REQUEST_TIMEOUT, "too_slow", detail).into_response()
}

/// Answers the requests of one connection.
#[expect(clippy::too_many_arguments, reason = "they are all there is of a connection")]
async fn connection<S>(
    stream: S,
    peer: SocketAddr,
    encrypted: bool,
    http: &hyper::server::conn::http1::Builder,
    app: Router,
    gate: &Arc<Gate>,
    place: &Place,
    watcher: Watcher,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (phase, gate) = (place.phase.clone(), Arc::clone(gate));
    let stream = Watchful::new(stream, phase.clone(), &gate.limits);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        phase.set(Doing::Asked);
        let (address, by_proxy) = client(peer.ip(), request.headers(), &gate.limits.proxies);
        let passed = gate.pass(address);
        request.extensions_mut().insert(ConnectInfo(SocketAddr::new(address, peer.port())));
        request.extensions_mut().insert(Waits::new(phase.clone()));
        if encrypted || by_proxy {
            request.extensions_mut().insert(Encrypted);
        }
        let (late, within) = (Arc::new(AtomicBool::new(false)), gate.limits.body_timeout);
        let body = Arc::clone(&late);
        let request = request.map(|it| Body::new(Timed::new(it, within, body, phase.clone())));
        let answer = app.clone().oneshot(request);
        let phase = phase.clone();
        async move {
            let answer = match passed {
                Ok(()) => answer.await?,
                Err(wait) => too_many(wait),
            };
            let is_late = late.load(Ordering::Relaxed);
            let answer = if is_late { late_body(within) } else { answer };
            Ok::<_, Infallible>(answer.map(|body| Followed::new(body, phase)))
        }
    });
    tokio::select! {
        // Another needs its place, and it is needed less.
        () = place.over.cancelled() => Err("displaced by another connection".into()),
        served = watcher.watch(http.serve_connection(TokioIo::new(stream), service)) => {
            served.map_err(Into::into)
        }
    }
}

#[cfg(test)]
mod tests;
