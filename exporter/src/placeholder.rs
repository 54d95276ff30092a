//! The page of a free slot: `pm2-exporter placeholder`, run by PM2 like any application.
//!
//! One runs for every free slot, all the time, so it is made to cost little memory: HTTP is
//! spoken by hand here, for three answers do not need what the rest of the program brings along.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use service::shutdown::Shutdown;
use service::{Exit, Failure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use wire::{SlotId, Time};

use service::html::escape;

/// Connections at a time; one more is closed at once.
const CONNECTIONS: usize = 256;
/// From one answer to the end of the next request's headers.
const HEADERS_WITHIN: Duration = Duration::from_secs(5);
/// Bytes that the headers may have.
const HEADERS: usize = 8 * 1024;

#[derive(Debug)]
struct Page {
    slot: SlotId,
    port: u16,
    html: String,
}

/// Serves until SIGTERM or SIGINT. `env` gives `PORT` and `SLOT_NAME`, and, where they are set,
/// `ADMIN_URL` and the slot's own address, `SLOT_A_URL` for slot `a`.
///
/// # Errors
/// A variable is missing or wrong (exit 2), or the port cannot be used (exit 3).
pub async fn serve(env: impl Fn(&str) -> Option<String>) -> Result<(), Failure> {
    let wrong = |message: String| Failure::new(Exit::Configuration, anyhow::anyhow!(message));
    let port = env("PORT").ok_or_else(|| wrong("PORT is not set".to_owned()))?;
    let port: u16 =
        port.parse().map_err(|_| wrong(format!("PORT: {port:?} is not a port: 0 to 65535")))?;
    let slot: SlotId = env("SLOT_NAME")
        .ok_or_else(|| wrong("SLOT_NAME is not set".to_owned()))?
        .parse()
        .map_err(|error| wrong(format!("SLOT_NAME: {error}")))?;
    let shutdown = Shutdown::on_signals().context("signals cannot be listened to")?;
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    // Not `serve::bind`: the page is made to be seen, and it can do nothing.
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failure::new(Exit::Listen, anyhow::anyhow!("port {port} cannot be used: {error}"))
    })?;
    let port = listener.local_addr().context("the listener has no address")?.port();
    let html = page(&slot, port, &env);
    let page = Arc::new(Page { slot, port, html });
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let stream = tokio::select! {
            () = shutdown.drain.cancelled() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    // Out of descriptors, most likely: asking again at once helps nobody.
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let page = Arc::clone(&page);
        tokio::spawn(async move {
            let _ = answer(stream, &page).await;
            drop(place);
        });
    }
}

/// Answers the requests of one connection.
async fn answer(mut stream: TcpStream, page: &Page) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let end = match timeout(HEADERS_WITHIN, head(&mut stream, &mut buffer)).await {
            Ok(Ok(Some(end))) => end,
            _ => return Ok(()),
        };
        let request = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.drain(..end);
        let mut words = request.split_ascii_whitespace();
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        // A body that nobody reads must not be taken for the next request.
        let lower = request.to_ascii_lowercase();
        let last = lower.contains("\ncontent-length:")
            || lower.contains("\ntransfer-encoding:")
            || lower.contains("\nconnection: close")
            || !lower.contains(" http/1.1\r\n");
        let response = respond(page, method, target, last);
        timeout(HEADERS_WITHIN, stream.write_all(response.as_bytes())).await??;
        if last {
            return stream.shutdown().await;
        }
    }
}

/// Reads until the headers are whole, and gives where they end.
async fn head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<usize>> {
    loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            return Ok(Some(at + 4));
        }
        let mut piece = [0; 1024];
        let read = stream.read(&mut piece).await?;
        if read == 0 || buffer.len() + read > HEADERS {
            return Ok(None);
        }
        buffer.extend_from_slice(&piece[..read]);
    }
}

fn respond(page: &Page, method: &str, target: &str, last: bool) -> String {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let (status, kind, more, body) = match (method, path) {
        ("GET" | "HEAD", "/") => (
            "200 OK",
            "text/html; charset=utf-8",
            "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; \
             frame-ancestors 'none'; base-uri 'none'\r\n",
            page.html.clone(),
        ),
        ("GET" | "HEAD", "/health") => ("200 OK", "application/json", "", health(page)),
        (_, "/" | "/health") => {
            ("405 Method Not Allowed", "text/plain", "Allow: GET, HEAD\r\n", String::new())
        }
        _ => ("307 Temporary Redirect", "text/plain", "Location: /\r\n", String::new()),
    };
    let connection = if last { "Connection: close\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n{more}{connection}\r\n",
        body.len()
    );
    if method == "HEAD" { head } else { head + &body }
}

fn health(page: &Page) -> String {
    // The slot's name needs no escaping: letters, digits, '-' and '_'.
    format!(
        "{{\"status\":\"healthy\",\"slot\":\"{}\",\"port\":{},\"timestamp\":\"{}\",\"type\":\"placeholder\"}}",
        page.slot,
        page.port,
        Time::now()
    )
}

fn page(slot: &SlotId, port: u16, env: impl Fn(&str) -> Option<String>) -> String {
    let link = |name: &str| {
        // Only what a link may be: no `javascript:`.
        env(name).filter(|url| url.starts_with("http://") || url.starts_with("https://"))
    };
    let own = format!("SLOT_{}_URL", slot.to_ascii_uppercase().replace('-', "_"));
    let address = match link(&own) {
        Some(url) => format!("<a href=\"{0}\">{0}</a>", escape(&url)),
        None => format!("port {port}"),
    };
    let admin = link("ADMIN_URL").map_or_else(String::new, |url| {
        format!("<p><a class=\"go\" href=\"{}\">Open the admin panel</a></p>", escape(&url))
    });
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>Slot {slot} is free</title><style>\
         :root{{color-scheme:light dark;font-family:system-ui,sans-serif;line-height:1.5}}\
         body{{margin:0;min-height:100vh;display:grid;place-items:center}}\
         main{{padding:2rem;max-width:34rem}}h1{{margin:0 0 .5rem;font-size:2rem}}\
         a.go{{display:inline-block;padding:.6rem 1.2rem;border:1px solid;border-radius:.4rem;text-decoration:none}}\
         </style></head><body><main><h1>Slot {slot}</h1>\
         <p>This slot is ready: nothing is deployed here yet.</p>\
         <p>What you deploy will be served at {address}.</p>{admin}</main></body></html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_its_health_and_a_redirect_are_answered() {
        let page = Page { slot: "a".parse().unwrap(), port: 3001, html: "page".to_owned() };
        let answer = respond(&page, "GET", "/?x", false);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\npage"), "{answer}");
        assert!(respond(&page, "HEAD", "/", false).ends_with("\r\n\r\n"));
        let answer = respond(&page, "GET", "/health", true);
        let body = answer.split("\r\n\r\n").nth(1).unwrap();
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&json["slot"], &json["port"]), (&"a".into(), &3001.into()));
        assert!(answer.contains("Connection: close"));
        for path in ["/x", "//evil.example", "*", ""] {
            let answer = respond(&page, "POST", path, false);
            assert!(answer.starts_with("HTTP/1.1 307") && answer.contains("Location: /\r\n"));
        }
        assert!(respond(&page, "POST", "/", false).starts_with("HTTP/1.1 405"));
    }

    #[tokio::test]
    async fn connections_are_kept_and_slow_ones_are_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let page = Page { slot: "a".parse().unwrap(), port: 1, html: "page".to_owned() };
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            answer(stream, &page).await
        });
        let mut client = TcpStream::connect(address).await.unwrap();
        let two =
            "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nConnection: close\r\n\r\n";
        client.write_all(two.as_bytes()).await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("page") && text.contains("healthy"), "{text}");
        server.await.unwrap().unwrap();
    }

    #[test]
    fn addresses_come_from_the_environment_and_cannot_break_out() {
        let env = |name: &str| match name {
            "SLOT_A_URL" => Some("https://a.example/\"><script>".to_owned()),
            "ADMIN_URL" => Some("javascript:alert(1)".to_owned()),
            _ => None,
        };
        let html = page(&"a".parse().unwrap(), 3001, env);
        assert!(html.contains("https://a.example/&quot;&gt;&lt;script&gt;"), "{html}");
        assert!(!html.contains("javascript:"), "{html}");
        assert!(page(&"b".parse().unwrap(), 3002, env).contains("port 3002"));
    }
}
