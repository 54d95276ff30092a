use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tower::Service;

/// Looks names up, each time that a connection is made, and leaves out where nothing is ever asked.
/// (Addresses in URLs are not looked up: they are refused where URLs are read.)
#[derive(Clone, Copy, Debug)]
pub(super) struct Resolver;

type Found = std::vec::IntoIter<SocketAddr>;

async fn look_up(name: &str) -> io::Result<Found> {
    let found = tokio::net::lookup_host((name, 0)).await?;
    Ok(service::places::allowed(found)?.into_iter())
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move { Ok(Box::new(look_up(name.as_str()).await?) as Addrs) })
    }
}

impl Service<dns::Name> for Resolver {
    type Response = Found;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Found>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: dns::Name) -> Self::Future {
        Box::pin(async move { look_up(name.as_str()).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn neither_way_leads_to_where_nothing_is_asked() {
        let there = "169.254.169.254";
        let error = Resolver.call(there.parse().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(Resolver.resolve(there.parse().unwrap()).await.is_err());
        assert!(Resolver.call("127.0.0.1".parse().unwrap()).await.unwrap().next().is_some());
        assert!(Resolver.resolve("127.0.0.1".parse().unwrap()).await.is_ok());
    }
}
