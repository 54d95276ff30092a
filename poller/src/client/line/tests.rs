use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::net::{TcpListener, TcpSocket};

use super::*;

const SOON: Duration = Duration::from_secs(10);

/// Somebody who gives these answers, one a request, in pieces as they are, and closes the
/// connection after an empty one; with a count of the connections that were made.
async fn server(answers: &[&[&'static [u8]]]) -> (Target, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/fleet", listener.local_addr().unwrap());
    let answers: Vec<Vec<&'static [u8]>> = answers.iter().map(|pieces| pieces.to_vec()).collect();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        let mut answers = answers.into_iter();
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let mut request = Vec::new();
            'connection: while stream.read_buf(&mut request).await.unwrap_or(0) > 0 {
                if !request.ends_with(b"\r\n\r\n") {
                    continue;
                }
                let text = String::from_utf8(std::mem::take(&mut request)).unwrap();
                assert!(text.starts_with("GET /fleet/api/journal?after=1 HTTP/1.1\r\n"), "{text}");
                assert!(text.contains("\r\nauthorization: Bearer t\r\n"), "{text}");
                for piece in answers.next().unwrap_or_default() {
                    if piece.is_empty() {
                        break 'connection;
                    }
                    stream.write_all(piece).await.unwrap();
                    // So that it is read by itself, mostly.
                    tokio::task::yield_now().await;
                }
            }
        }
    });
    (target(&url), connections)
}

fn target(url: &str) -> Target {
    Target {
        id: "vm1".parse().unwrap(),
        url: url.to_owned(),
        group: String::new(),
        tags: Vec::new(),
        credential: Ok(Some(HeaderValue::from_static("Bearer t"))),
        tls: None,
    }
}

async fn ask(line: &mut Line, target: &Target, max: usize) -> Result<(u16, Vec<u8>), CallError> {
    let client = Client::new(Duration::from_secs(60)).unwrap();
    let answer = line.ask(&client, target, "/api/journal?after=1", SOON, max).await;
    answer.map(|(status, body)| (status.as_u16(), body.to_vec()))
}

#[tokio::test]
async fn a_body_is_as_long_as_it_says_in_whichever_way() {
    let (target, connections) = server(&[
        &[b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody"],
        &[b"HTTP/1.1 200 OK\r\nConte", b"nt-Length: 4\r\n\r\nbo", b"dy"],
        &[b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 404 No\r\ncontent-length:4\r\n\r\nbody"],
        &[
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            b"1\r\nb\r\n3;x=1\r",
            b"\nod",
            b"y\r\n0\r\n\r\n",
        ],
        &[b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"],
        &[b"HTTP/1.1 204 No\r\n\r\n"],
        &[b"HTTP/1.1 200 OK\r\n\r\nbo", b"dy", b""],
    ])
    .await;
    let mut line = Line::default();
    for status in [200, 200, 404, 200] {
        assert_eq!(ask(&mut line, &target, 4).await, Ok((status, b"body".to_vec())));
    }
    assert_eq!(ask(&mut line, &target, 4).await, Ok((302, Vec::new())));
    assert_eq!(ask(&mut line, &target, 4).await, Ok((204, Vec::new())));
    assert_eq!(connections.load(Ordering::Relaxed), 1, "one connection for all");
    assert_eq!(ask(&mut line, &target, 4).await, Ok((200, b"body".to_vec())));
    assert!(line.open.is_none(), "its end was the end of the body");
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_made_anew_and_asked_again() {
    let whole: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody";
    let (target, connections) =
        server(&[&[whole], &[b""], &[whole], &[b"HTTP/1.1 2", b""], &[b""]]).await;
    let mut line = Line::default();
    for _ in 0..2 {
        assert_eq!(ask(&mut line, &target, 4).await, Ok((200, b"body".to_vec())));
    }
    assert_eq!(connections.load(Ordering::Relaxed), 2);
    // One that broke off within its answer is not asked again, and a new one not twice.
    for _ in 0..2 {
        assert!(matches!(ask(&mut line, &target, 4).await, Err(CallError::Broken(_))));
    }
    assert_eq!(connections.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn what_is_too_large_or_not_understood_is_refused_and_its_connection_closed() {
    let large = CallError::TooLarge(4);
    let (target, connections) = server(&[
        &[b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"],
        &[b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbodyx"],
        &[b"HTTP/1.1 200 OK\r\n\r\nbodyx"],
        &[b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nb"],
        &[b"HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\nb"],
        &[b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"],
        &[b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 1\r\n\r\nb"],
        &[b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nb"],
        &[b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"],
        &[b"SSH-2.0-x\r\n\r\n"],
    ])
    .await;
    let mut line = Line::default();
    for number in 0..10 {
        let answer = ask(&mut line, &target, 4).await.expect_err("refused");
        match number {
            ..3 => assert_eq!(answer, large, "{number}"),
            _ => assert!(matches!(answer, CallError::Broken(_)), "{number}: {answer:?}"),
        }
        assert_eq!(connections.load(Ordering::Relaxed), number + 1);
    }
}

#[tokio::test]
async fn what_is_packed_is_unpacked_up_to_its_bound() {
    let packed = |bytes: usize| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&vec![b'x'; bytes]).unwrap();
        let packed = encoder.finish().unwrap();
        let length = packed.len();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {length}");
        let head = format!("{head}\r\n\r\n").into_bytes();
        vec![&*head.leak(), &*packed.leak()]
    };
    let (target, _) = server(&[&packed(1000), &packed(1 << 24)]).await;
    let mut line = Line::default();
    assert_eq!(ask(&mut line, &target, 1000).await, Ok((200, vec![b'x'; 1000])));
    assert_eq!(ask(&mut line, &target, 1 << 20).await, Err(CallError::TooLarge(1 << 20)));
}

#[tokio::test]
async fn who_gives_up_waiting_leaves_no_answer_behind() {
    let whole: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody";
    let (target, connections) = server(&[&[whole], &[], &[whole]]).await;
    let client = Client::new(Duration::from_secs(60)).unwrap();
    let mut line = Line::default();
    assert!(ask(&mut line, &target, 4).await.is_ok());
    let path = "/api/journal?after=1";
    let late = line.ask(&client, &target, path, Duration::from_millis(50), 4).await;
    assert!(matches!(late, Err(CallError::Timeout(_))), "{late:?}");
    assert!(ask(&mut line, &target, 4).await.is_ok());
    assert_eq!(connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn nobody_there_is_told_as_such() {
    // Taken, so that nobody else comes to listen there, and not listened at.
    let taken = TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let gone = taken.local_addr().unwrap();
    let answer = ask(&mut Line::default(), &target(&format!("http://{gone}")), 4).await;
    let Err(CallError::Connect(why)) = answer else { panic!("{answer:?}") };
    assert!(why.contains("refused"), "{why}");
}
