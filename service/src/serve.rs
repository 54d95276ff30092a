//! Listening: who may be listened to, with which deadlines and bounds, and how it ends.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};
use tower::ServiceExt;

use crate::shutdown::Shutdown;
use crate::{Exit, Failure};

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first byte of a request to the end of its headers.
    pub header_timeout: Duration,
    /// How long a kept-open connection may stay quiet.
    pub idle_timeout: Duration,
    /// Connections at a time; one more is closed at once.
    pub connections: usize,
    /// How long a stop waits for requests under way.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(120),
            connections: 4096,
            drain: Duration::from_secs(4),
        }
    }
}

/// Binds `address`, refusing to be reachable beyond loopback by people nobody checks.
///
/// # Errors
/// The address is beyond loopback and there is no credential, or it cannot be bound.
pub async fn bind(address: SocketAddr, has_credentials: bool) -> Result<TcpListener, Failure> {
    if !address.ip().is_loopback() && !has_credentials {
        return Err(Failure::new(
            Exit::Configuration,
            anyhow::anyhow!(
                "listen: {address} is reachable from outside, and there is no token: \
                 create one with 'token create', or listen on 127.0.0.1"
            ),
        ));
    }
    TcpListener::bind(address).await.map_err(|error| {
        Failure::new(Exit::Listen, anyhow::anyhow!("listen: {address} cannot be used: {error}"))
    })
}

/// Serves `app` until `shutdown`. Requests under way get [`Limits::drain`] to end.
/// Handlers find the client's address as [`ConnectInfo<SocketAddr>`].
pub async fn serve(listener: TcpListener, app: Router, limits: Limits, shutdown: Shutdown) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let tasks = tokio_util::task::TaskTracker::new();
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.idle_timeout).max_buf_size(64 * 1024);
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
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::debug!(%peer, "too many connections");
            continue;
        };
        // Answers are small and complete: waiting to fill a packet only adds delay.
        let _ = stream.set_nodelay(true);
        let phase = Phase::default();
        let stream = HeadDeadline::new(stream, phase.clone(), limits.header_timeout);
        let app = app.clone();
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            phase.set(Phase::ANSWERING);
            request.extensions_mut().insert(ConnectInfo(peer));
            let answer = app.clone().oneshot(request.map(Body::new));
            let phase = phase.clone();
            async move {
                let answer = answer.await;
                phase.set(Phase::QUIET);
                answer
            }
        });
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%peer, %error, "connection ended");
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

/// What a connection is doing, told by the service to the stream beneath it.
#[derive(Clone, Default)]
struct Phase(Arc<AtomicU8>);

impl Phase {
    /// Headers are being read; a connection begins so.
    const HEAD: u8 = 0;
    /// A request is being answered.
    const ANSWERING: u8 = 1;
    /// Between requests.
    const QUIET: u8 = 2;

    fn set(&self, phase: u8) {
        self.0.store(phase, Ordering::Relaxed);
    }

    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream whose reads fail when the headers of a request take too long. hyper's own header
/// timeout also counts the quiet time between requests, which may be long.
struct HeadDeadline {
    stream: TcpStream,
    phase: Phase,
    allowed: Duration,
    deadline: Pin<Box<Sleep>>,
}

impl HeadDeadline {
    fn new(stream: TcpStream, phase: Phase, allowed: Duration) -> Self {
        Self { stream, phase, allowed, deadline: Box::pin(tokio::time::sleep(allowed)) }
    }
}

impl AsyncRead for HeadDeadline {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(cx, buf) {
            if buf.filled().len() > before && self.phase.get() == Phase::QUIET {
                self.phase.set(Phase::HEAD);
                let deadline = Instant::now() + self.allowed;
                self.deadline.as_mut().reset(deadline);
            }
            return Poll::Ready(result);
        }
        if self.phase.get() == Phase::HEAD {
            ready!(self.deadline.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl AsyncWrite for HeadDeadline {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn start(limits: Limits) -> (SocketAddr, Shutdown, tokio::task::JoinHandle<()>) {
        let listener = bind("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().route("/", axum::routing::get(async || "hello")).route(
            "/slow",
            axum::routing::get(async || {
                tokio::time::sleep(Duration::from_millis(300)).await;
                "slow"
            }),
        );
        let shutdown = Shutdown::default();
        let task = tokio::spawn(serve(listener, app, limits, shutdown.clone()));
        (address, shutdown, task)
    }

    async fn until_closed(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        let read = stream.read_to_string(&mut text);
        tokio::time::timeout(Duration::from_secs(10), read).await.unwrap().unwrap();
        text
    }

    #[tokio::test]
    async fn slow_headers_are_cut_off_and_quiet_connections_are_kept() {
        let header_timeout = Duration::from_millis(200);
        let (address, _, _) = start(Limits { header_timeout, ..Limits::default() }).await;

        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").await.unwrap();
        assert!(!until_closed(&mut slow).await.contains("hello"));

        let mut quiet = TcpStream::connect(address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut answer = [0; 512];
        for _ in 0..2 {
            quiet.write_all(request).await.unwrap();
            let read = quiet.read(&mut answer).await.unwrap();
            assert!(String::from_utf8_lossy(&answer[..read]).ends_with("hello"));
            tokio::time::sleep(header_timeout * 2).await;
        }
        quiet.write_all(b"GET / HT").await.unwrap();
        assert_eq!(until_closed(&mut quiet).await, "");
    }

    #[tokio::test]
    async fn a_stop_lets_requests_under_way_end() {
        let (address, shutdown, task) = start(Limits::default()).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        shutdown.drain.cancel();
        assert!(until_closed(&mut stream).await.ends_with("slow"));
        task.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn one_connection_too_many_is_closed() {
        let (address, _, _) = start(Limits { connections: 1, ..Limits::default() }).await;
        let _first = TcpStream::connect(address).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut second = TcpStream::connect(address).await.unwrap();
        assert_eq!(until_closed(&mut second).await, "");
    }

    #[tokio::test]
    async fn nobody_listens_beyond_loopback_without_a_credential() {
        let failure = bind("0.0.0.0:0".parse().unwrap(), false).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Configuration);
        assert!(bind("0.0.0.0:0".parse().unwrap(), true).await.is_ok());
        let taken = bind("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
        let failure = bind(taken.local_addr().unwrap(), false).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Listen);
    }
}
