//! The connection that a server's polls keep to themselves: one question at a time, one write and
//! mostly one read each, and no memory while nothing comes. It is what a poll's cost consists of,
//! so it is done without a client's pool, channels and tasks; everything else asks by reqwest.
//!
//! HTTP/1.1 as RFC 9112 has it, for `GET`: lengths, chunks or the end of the connection delimit a
//! body; redirects are answers like any other; what is not understood ends the connection.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::http::{HeaderValue, StatusCode, Uri};
use bytes::Bytes;
use hyper_util::client::legacy::connect::HttpConnector;
use reqwest::Url;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::ServiceExt;

use super::body::Body;
use super::resolve::Resolver;
use super::{AGENT, CallError, Client, innermost};
use crate::config::Target;

/// What is read at a time: an answer of a usual server as a whole.
const PIECE: usize = 16 * 1024;
/// Longest head of an answer, and most headers.
const HEAD: usize = 32 * 1024;
const HEADERS: usize = 64;

/// A connection to one exporter, once there is one.
#[derive(Debug, Default)]
pub struct Line {
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    stream: Stream,
    /// Since when nothing was asked.
    quiet: Instant,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: StatusCode,
    length: Length,
    gzip: bool,
    /// The connection may be used again.
    keep: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Known(usize),
    Chunked,
    ToTheEnd,
}

/// Why a connection gave no answer.
enum Fault {
    /// It ended before the first byte of an answer: a kept one was closed meanwhile.
    Unanswered(String),
    Call(CallError),
}

impl Line {
    /// Asks `path` of `target` on this connection, within `time` for all of it.
    ///
    /// # Errors
    /// There is no whole answer; the connection is closed then.
    pub async fn ask(
        &mut self,
        client: &Client,
        target: &Target,
        path: &str,
        time: Duration,
        max: usize,
    ) -> Result<(StatusCode, Bytes), CallError> {
        #[cfg(test)]
        if client.simulated.is_some() {
            let asked = client.ask(axum::http::Method::GET, target, path, None, time, max);
            return asked.await.map(|answer| (answer.status, answer.body));
        }
        let start = Instant::now();
        tokio::time::timeout(time, self.asked(client, target, path, max))
            .await
            .unwrap_or_else(|_| Err(CallError::Timeout(start.elapsed())))
    }

    async fn asked(
        &mut self,
        client: &Client,
        target: &Target,
        path: &str,
        max: usize,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let credential =
            target.credential.as_ref().map_err(|why| CallError::Credential(why.clone()))?;
        let request = request(&target.url, path, credential.as_ref())?;
        // Taken out: whoever gives up in between leaves no half-read connection behind.
        if let Some(mut open) = self.open.take().filter(|open| open.quiet.elapsed() < client.keep) {
            match open.stream.exchange(&request, max).await {
                Ok(answer) => return Ok(self.kept(open, answer)),
                Err(Fault::Call(error)) => return Err(error),
                Err(Fault::Unanswered(_)) => {}
            }
        }
        let stream = connect(client, target).await?;
        let mut open = Open { stream, quiet: Instant::now() };
        match open.stream.exchange(&request, max).await {
            Ok(answer) => Ok(self.kept(open, answer)),
            Err(Fault::Call(error)) => Err(error),
            Err(Fault::Unanswered(why)) => Err(CallError::Broken(why)),
        }
    }

    fn kept(&mut self, open: Open, (head, body): (Head, Bytes)) -> (StatusCode, Bytes) {
        if head.keep {
            self.open = Some(Open { quiet: Instant::now(), ..open });
        }
        (head.status, body)
    }
}

/// `base` is known to be an address without a path's slash at its end.
fn request(base: &str, path: &str, credential: Option<&HeaderValue>) -> Result<Vec<u8>, CallError> {
    let (_, place) = base.split_once("://").unwrap_or_default();
    let (host, prefix) = place.split_at(place.find('/').unwrap_or(place.len()));
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if host.is_empty() || !plain(place) || !plain(path) {
        return Err(CallError::Connect(format!("{base}{path} cannot be asked")));
    }
    let parts: [&[u8]; 6] = [
        b"GET ",
        prefix.as_bytes(),
        path.as_bytes(),
        b" HTTP/1.1\r\nhost: ",
        host.as_bytes(),
        b"\r\naccept: application/json\r\naccept-encoding: gzip\r\nuser-agent: ",
    ];
    let mut request = Vec::with_capacity(512);
    parts.iter().for_each(|part| request.extend_from_slice(part));
    request.extend_from_slice(AGENT.as_bytes());
    if let Some(credential) = credential {
        request.extend_from_slice(b"\r\nauthorization: ");
        request.extend_from_slice(credential.as_bytes());
    }
    request.extend_from_slice(b"\r\n\r\n");
    Ok(request)
}

async fn connect(client: &Client, target: &Target) -> Result<Stream, CallError> {
    let failed = |error: &(dyn Error + 'static)| CallError::Connect(innermost(error));
    let uri: Uri =
        target.url.parse().map_err(|error: axum::http::uri::InvalidUri| failed(&error))?;
    let mut connector = HttpConnector::new_with_resolver(Resolver);
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_keepalive(Some(super::TCP_KEEPALIVE));
    let stream = connector.oneshot(uri).await.map_err(|error| failed(&error))?.into_inner();
    let Some(tls) = &target.tls else { return Ok(Stream::Plain(stream)) };
    let url = Url::parse(&target.url).map_err(|error| failed(&error))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(|error| failed(&error))?;
    let connector = TlsConnector::from(client.encryption(tls)?);
    let stream = connector.connect(name, stream).await.map_err(|error| failed(&error))?;
    client.seen.put(&target.url, stream.get_ref().1);
    Ok(Stream::Encrypted(Box::new(stream)))
}

impl Stream {
    async fn exchange(&mut self, request: &[u8], max: usize) -> Result<(Head, Bytes), Fault> {
        let sent = async {
            self.write_all(request).await?;
            self.flush().await
        };
        sent.await.map_err(|error| Fault::Unanswered(innermost(&error)))?;
        let mut read = Vec::new();
        let (mut head, begin) = self.head(&mut read).await?;
        let body = self.body(&mut head, read, begin, max).await.map_err(Fault::Call)?;
        Ok((head, body))
    }

    /// The head of the answer, and where in what was read its body begins.
    async fn head(&mut self, read: &mut Vec<u8>) -> Result<(Head, usize), Fault> {
        let broken = |why: &str| Fault::Call(CallError::Broken(why.to_owned()));
        // Most of the time is spent here, by all servers: a place to read to is made afterwards.
        let ready = match self {
            Self::Plain(stream) => stream.readable().await,
            Self::Encrypted(stream) => stream.get_ref().0.readable().await,
        };
        ready.map_err(|error| Fault::Unanswered(innermost(&error)))?;
        loop {
            while let Some((head, end)) = head(read).map_err(|why| broken(&why))? {
                if !head.status.is_informational() {
                    return Ok((head, end));
                }
                // An interim answer: the true one follows.
                read.drain(..end);
            }
            if read.len() > HEAD {
                return Err(broken("the head of the answer is too long"));
            }
            read.reserve(PIECE);
            match self.read_buf(read).await {
                Ok(0) if read.is_empty() => {
                    return Err(Fault::Unanswered("the connection was closed".to_owned()));
                }
                Ok(0) => return Err(broken(CUT)),
                Ok(_) => {}
                Err(error) if read.is_empty() => {
                    return Err(Fault::Unanswered(innermost(&error)));
                }
                Err(error) => return Err(broken(&innermost(&error))),
            }
        }
    }

    /// The body, which begins at `begin` of what was read already.
    async fn body(
        &mut self,
        head: &mut Head,
        mut read: Vec<u8>,
        begin: usize,
        max: usize,
    ) -> Result<Bytes, CallError> {
        if let (Length::Known(length), false) = (head.length, head.gzip) {
            // As it mostly is: nothing has to be moved.
            if length > max {
                return Err(CallError::TooLarge(max));
            }
            let end = begin + length;
            while read.len() < end {
                self.more(&mut read).await?;
            }
            head.keep &= read.len() == end;
            return Ok(Bytes::from(read).slice(begin..end));
        }
        read.drain(..begin);
        let mut body = Body::new(head.gzip, max);
        match head.length {
            Length::Known(mut left) => loop {
                let part = read.len().min(left);
                body.put(&read[..part])?;
                left -= part;
                head.keep &= read.len() == part;
                if left == 0 {
                    break;
                }
                read.clear();
                self.more(&mut read).await?;
            },
            Length::Chunked => self.chunks(&mut body, &mut read, head).await?,
            Length::ToTheEnd => loop {
                body.put(&read)?;
                read.clear();
                if self.read_some(&mut read).await? == 0 {
                    break;
                }
            },
        }
        body.end()
    }

    async fn chunks(
        &mut self,
        body: &mut Body,
        read: &mut Vec<u8>,
        head: &mut Head,
    ) -> Result<(), CallError> {
        let wrong = || CallError::Broken("a chunk of the answer is not understood".to_owned());
        // What was looked at goes all at once, or chunks of a byte would move the rest each time.
        let mut at = 0;
        loop {
            let (start, length) = loop {
                match httparse::parse_chunk_size(&read[at..]).map_err(|_| wrong())? {
                    httparse::Status::Complete(found) => break found,
                    httparse::Status::Partial if read.len() - at > HEAD => return Err(wrong()),
                    httparse::Status::Partial => self.more_from(read, &mut at).await?,
                }
            };
            at += start;
            let mut left = usize::try_from(length).map_err(|_| wrong())?;
            if left == 0 {
                break;
            }
            while left > 0 {
                let part = (read.len() - at).min(left);
                body.put(&read[at..at + part])?;
                at += part;
                left -= part;
                if left > 0 {
                    self.more_from(read, &mut at).await?;
                }
            }
            while read.len() - at < 2 {
                self.more_from(read, &mut at).await?;
            }
            if !read[at..].starts_with(b"\r\n") {
                return Err(wrong());
            }
            at += 2;
        }
        while read.len() - at < 2 {
            self.more_from(read, &mut at).await?;
        }
        // Where fields follow the last chunk, the connection is not worth reading them.
        head.keep &= read[at..] == *b"\r\n";
        Ok(())
    }

    /// More, after what is left from `at` on.
    async fn more_from(&mut self, read: &mut Vec<u8>, at: &mut usize) -> Result<(), CallError> {
        read.drain(..std::mem::take(at));
        self.more(read).await
    }

    async fn more(&mut self, read: &mut Vec<u8>) -> Result<(), CallError> {
        match self.read_some(read).await? {
            0 => Err(CallError::Broken(CUT.to_owned())),
            _ => Ok(()),
        }
    }

    async fn read_some(&mut self, read: &mut Vec<u8>) -> Result<usize, CallError> {
        if read.len() == read.capacity() {
            read.reserve(PIECE);
        }
        self.read_buf(read).await.map_err(|error| CallError::Broken(innermost(&error)))
    }
}

/// The head at the beginning of what was read, and its end; `None` while it is not whole.
fn head(read: &[u8]) -> Result<Option<(Head, usize)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Response::new(&mut headers);
    let end = match parsed.parse(read) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("the answer is not HTTP: {error}")),
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or("the answer has no status")?;
    let empty = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || status.is_informational();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err("the answer speaks of another protocol".to_owned());
    }
    let (mut length, mut chunked, mut gzip) = (None, false, false);
    let mut keep = parsed.version == Some(1);
    for header in parsed.headers.iter() {
        let value = header.value.trim_ascii();
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let digits = std::str::from_utf8(value).ok().filter(|text| !text.starts_with('+'));
            let new = digits.and_then(|digits| digits.parse::<usize>().ok());
            let new = new.ok_or("the length of the answer is no number")?;
            if length.replace(new).is_some_and(|old| old != new) {
                return Err("the answer has two lengths".to_owned());
            }
        } else if is("transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err("the answer's transfer-encoding is not understood".to_owned());
            }
            chunked = true;
        } else if is("content-encoding") {
            gzip = value.eq_ignore_ascii_case(b"gzip");
            if !gzip && !value.eq_ignore_ascii_case(b"identity") {
                return Err("the answer's content-encoding is not understood".to_owned());
            }
        } else if is("connection") {
            let mut words = value.split(|byte| *byte == b',');
            keep &= !words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"));
        }
    }
    let length = match (empty, chunked, length) {
        (true, ..) => Length::Known(0),
        // Both: whoever sent it is not to be trusted with a second answer.
        (_, true, both) => {
            keep &= both.is_none();
            Length::Chunked
        }
        (_, _, Some(length)) => Length::Known(length),
        (_, _, None) => {
            keep = false;
            Length::ToTheEnd
        }
    };
    Ok(Some((Head { status, length, gzip: gzip && !empty, keep }, end)))
}

/// The answer ended before its end.
const CUT: &str = "the connection was closed within an answer";

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Encrypted(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, from),
            Self::Encrypted(stream) => Pin::new(stream).poll_write(cx, from),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Encrypted(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Encrypted(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests;
