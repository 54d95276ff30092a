use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Extension;
use axum::body::Bytes;
use hyper::body::Frame;
use tokio::io::AsyncReadExt;

use super::*;

/// A request that is at work from one word to the other.
#[derive(Clone, Default)]
struct Slow {
    begun: Arc<tokio::sync::Notify>,
    end: Arc<tokio::sync::Notify>,
}

/// A body without an end: a piece at once, and then one every so often.
struct Pieces(tokio::time::Interval);

impl Pieces {
    fn new() -> Self {
        Self(tokio::time::interval(Duration::from_millis(10)))
    }
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = Frame::data(Bytes::from_static(b"piece"));
        self.0.poll_tick(cx).map(|_| Some(Ok(piece)))
    }
}

async fn start(limits: Limits) -> (SocketAddr, Shutdown, tokio::task::JoinHandle<()>, Slow) {
    let listener = bind("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
    let address = listener.local_addr().unwrap();
    let slow = Slow::default();
    let (work, waiting) = (slow.clone(), slow.clone());
    let app = Router::new()
        .route("/", axum::routing::get(async || "hello").post(async |body: String| body))
        .route(
            "/who",
            axum::routing::get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| {
                peer.ip().to_string()
            }),
        )
        .route(
            "/wait",
            axum::routing::get(async move |Extension(waits): Extension<Waits>| {
                waits.begin();
                waiting.begun.notify_one();
                waiting.end.notified().await;
                "slow"
            }),
        )
        .route("/stream", axum::routing::get(async || Body::new(Pieces::new())))
        .route("/large", axum::routing::get(async || "x".repeat(64 << 20)))
        .route(
            "/slow",
            axum::routing::get(async move || {
                work.begun.notify_one();
                work.end.notified().await;
                "slow"
            }),
        );
    let shutdown = Shutdown::default();
    let task = tokio::spawn(serve(listener, None, app, limits, shutdown.clone()));
    (address, shutdown, task, slow)
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
    let (address, ..) = start(Limits { header_timeout, ..Limits::default() }).await;

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
    let (address, shutdown, task, slow) = start(Limits::default()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    slow.begun.notified().await;
    shutdown.drain.cancel();
    tokio::task::yield_now().await;
    slow.end.notify_one();
    assert!(until_closed(&mut stream).await.ends_with("slow"));
    task.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn one_connection_too_many_takes_the_place_of_one_that_asks_for_nothing() {
    let waits_after = Duration::from_secs(60);
    let limits = Limits { connections: 1, waits_after, ..Limits::default() };
    let (address, _, _, slow) = start(limits).await;
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut second = TcpStream::connect(address).await.unwrap();
    assert_eq!(until_closed(&mut first).await, "");
    second.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    slow.begun.notified().await;
    let mut third = TcpStream::connect(address).await.unwrap();
    assert_eq!(until_closed(&mut third).await, "", "the second is at work");
    slow.end.notify_one();
    assert!(until_closed(&mut second).await.ends_with("slow"));
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    until_closed(&mut stream).await
}

/// Begins a request, and does not end or read it.
async fn begin(address: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

const CLOSE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const FEW: usize = 8;

#[tokio::test]
async fn bodies_that_are_awaited_keep_nobody_from_anything() {
    let (address, ..) = start(Limits { connections_of_address: FEW, ..Limits::default() }).await;
    let part = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\npart";
    let mut begun = Vec::new();
    for _ in 0..3 {
        for _ in 0..FEW {
            begun.push(begin(address, part).await);
        }
        // They are seen to come.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(ask(address, CLOSE).await.ends_with("hello"));
    }
}

#[tokio::test]
async fn requests_that_wait_keep_nobody_from_anything() {
    let short = Duration::from_millis(100);
    // One whose handler says so, and one that is only not answered.
    for (path, waits_after) in [("wait", Duration::from_secs(60)), ("slow", short)] {
        let limits = Limits { connections_of_address: FEW, waits_after, ..Limits::default() };
        let (address, _, _, slow) = start(limits).await;
        let mut waiting = Vec::new();
        for _ in 0..FEW {
            let wait = format!("GET /{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            waiting.push(begin(address, &wait).await);
            slow.begun.notified().await;
        }
        tokio::time::sleep(short).await;
        assert!(ask(address, CLOSE).await.ends_with("hello"), "{path}");
        // The one that waited for longest gave way; the rest get their answers.
        assert_eq!(until_closed(&mut waiting.remove(0)).await, "");
        slow.end.notify_waiters();
        for mut stream in waiting {
            assert!(until_closed(&mut stream).await.ends_with("slow"));
        }
    }
}

#[tokio::test]
async fn answers_under_way_do_not_give_way_to_who_asks_for_nothing() {
    let (address, ..) = start(Limits { connections_of_address: FEW, ..Limits::default() }).await;
    let mut follower = begin(address, "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let large = "GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut reader = begin(address, large).await;
    for stream in [&mut follower, &mut reader] {
        assert!(stream.read(&mut [0; 16]).await.unwrap() > 0);
    }
    let mut idle = Vec::new();
    for number in 0..4 * FEW {
        let mut stream = begin(address, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(stream.read(&mut [0; 512]).await.unwrap() > 0, "{number}");
        idle.push(stream);
    }
    // What was in flight, and what came after.
    let mut piece = [0; 64 * 1024];
    for _ in 0..3 {
        assert!(follower.read(&mut piece).await.unwrap() > 0);
    }
    assert!(until_closed(&mut reader).await.len() >= 64 << 20);
}

/// X11, the short form: what a thousand slow connections of one address do to another request
/// from it.
#[tokio::test]
async fn a_thousand_slow_connections_keep_nobody_from_anything() {
    let (address, ..) = start(Limits::default()).await;
    let mut slow = Vec::new();
    for _ in 0..1000 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX-a: ").await.unwrap();
        slow.push(stream);
        if slow.len() % 100 == 0 {
            assert!(ask(address, CLOSE).await.ends_with("hello"), "{}", slow.len());
        }
    }
    // The oldest were displaced; what is left of the address is its share.
    let mut rest = [0; 1];
    let read = tokio::time::timeout(Duration::from_secs(5), slow[0].read(&mut rest)).await;
    assert_eq!(read.unwrap().unwrap_or(0), 0);
}

#[tokio::test]
async fn a_body_that_drips_is_cut_off_and_a_reader_that_stalls_too() {
    let short = Duration::from_millis(200);
    let limits = Limits { body_timeout: short, stall_timeout: short, ..Limits::default() };
    let (address, ..) = start(limits).await;
    let whole = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    assert!(ask(address, whole).await.ends_with("ok"));
    let part = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\npart";
    let answer = ask(address, part).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("too_slow"), "{answer}");

    let mut lazy = TcpStream::connect(address).await.unwrap();
    lazy.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    // So long that a machine with other work notices the stall before it is over.
    tokio::time::sleep(Duration::from_secs(5)).await;
    // What was in flight comes, and then the end of it.
    let mut all = Vec::new();
    let end = lazy.read_to_end(&mut all);
    let _ = tokio::time::timeout(Duration::from_secs(10), end).await.unwrap();
    assert!(all.len() < 64 << 20, "{}", all.len());
}

#[tokio::test]
async fn requests_of_an_address_are_counted_and_a_trusted_proxy_says_of_whom() {
    let proxies = vec!["127.0.0.1".parse().unwrap()];
    let limits = Limits { requests: Some(1), proxies, ..Limits::default() };
    let (address, ..) = start(limits).await;
    let from = async |client: &str| {
        let request = format!(
            "GET /who HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n\
             Connection: close\r\n\r\n"
        );
        ask(address, &request).await
    };
    for _ in 0..4 {
        assert!(from("203.0.113.1, 192.0.2.1").await.ends_with("192.0.2.1"));
    }
    // One a second comes back: where requests are slow, more of them are answered first.
    let mut over = String::new();
    for _ in 0..50 {
        over = from("203.0.113.2, 192.0.2.1").await;
        if over.starts_with("HTTP/1.1 429 ") {
            break;
        }
    }
    assert!(over.starts_with("HTTP/1.1 429 ") && over.contains("retry-after: "), "{over}");
    assert!(over.contains("application/problem+json"), "{over}");
    assert!(from("192.0.2.2").await.ends_with("192.0.2.2"), "others are not concerned");
    for _ in 0..10 {
        assert!(from("127.0.0.1").await.ends_with("127.0.0.1"));
    }
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

#[tokio::test]
async fn an_address_that_is_given_up_in_a_moment_is_waited_for() {
    let held = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = held.local_addr().unwrap();
    let given_up = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(held);
    };
    let (bound, ()) = tokio::join!(bind(address, false), given_up);
    assert_eq!(bound.unwrap().local_addr().unwrap(), address);
}
