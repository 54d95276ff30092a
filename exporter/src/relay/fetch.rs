//! One page, over plain HTTP; redirects are not followed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use exposition::relay::{Told, Unreadable, parse};
use hyper_util::rt::TokioIo;
use service::places;
use tokio::net::TcpStream;

use super::Reason;
use crate::config::Relay;

/// Largest page.
const MAX_PAGE: usize = 4 * 1024 * 1024;

/// A page of fewer bytes is parsed in a few milliseconds.
const QUICK: usize = 128 * 1024;

pub(super) async fn page(relay: &Relay) -> Result<Vec<Told>, Reason> {
    let stream = connect(relay).await.map_err(|_| Reason::Unreachable)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Reason::Unreachable)?;
    let request = Request::get(&relay.path)
        .header(header::HOST, relay.target.split('/').next().unwrap_or_default())
        .header(header::ACCEPT, "text/plain;version=0.0.4")
        .header(header::ACCEPT_ENCODING, "identity")
        .header(header::USER_AGENT, concat!("pm2-exporter/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Body::empty())
        .map_err(|_| Reason::Unreachable)?;
    let asked = async {
        let answer = sender.send_request(request).await.map_err(|_| Reason::Unreachable)?;
        if answer.status() != StatusCode::OK {
            return Err(Reason::Status);
        }
        let coded = answer.headers().get(header::CONTENT_ENCODING);
        if coded.is_some_and(|coding| coding != "identity") {
            return Err(Reason::Malformed);
        }
        read(Body::new(answer.into_body())).await
    };
    // Both here, and not one as a task of its own: with the deadline both are gone.
    let mut connection = std::pin::pin!(connection);
    let mut asked = std::pin::pin!(asked);
    let mut open = true;
    let bytes = loop {
        tokio::select! {
            answer = &mut asked => break answer?,
            _ = &mut connection, if open => open = false,
        }
    };
    let text = String::from_utf8(bytes).map_err(|_| Reason::Malformed)?;
    let most = relay.max_series;
    // A large page would keep everything else waiting.
    let parsed = match text.len() {
        ..QUICK => parse(&text, most),
        _ => tokio::task::spawn_blocking(move || parse(&text, most))
            .await
            .map_err(|_| Reason::Malformed)?,
    };
    parsed.map_err(|error| match error {
        Unreadable::TooMany => Reason::TooManySeries,
        Unreadable::Line(line) => {
            tracing::debug!(target = %relay.target, line, "a line that is none of the format");
            Reason::Malformed
        }
    })
}

/// All of a body, which ends at the cap and not behind it.
async fn read(body: Body) -> Result<Vec<u8>, Reason> {
    use futures_util::StreamExt;
    let mut pieces = body.into_data_stream();
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| Reason::Unreachable)?;
        if all.len() + piece.len() > MAX_PAGE {
            return Err(Reason::TooLarge);
        }
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

async fn connect(relay: &Relay) -> io::Result<TcpStream> {
    let local = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
    let addresses: Vec<SocketAddr> = match relay.host.parse::<IpAddr>() {
        Ok(address) => vec![(address, relay.port).into()],
        // Never what a resolver takes it for.
        Err(_) if relay.host == "localhost" => {
            local.into_iter().map(|address| (address, relay.port).into()).collect()
        }
        Err(_) => tokio::net::lookup_host((relay.host.as_str(), relay.port)).await?.collect(),
    };
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in places::allowed(addresses.into_iter())? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
