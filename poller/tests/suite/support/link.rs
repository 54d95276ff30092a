//! A way to an exporter that can be cut: nobody listens there then, and what was open is closed.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

pub struct Link {
    pub address: SocketAddr,
    to: SocketAddr,
    passing: JoinHandle<()>,
}

impl Link {
    pub async fn to(to: SocketAddr) -> Self {
        // An address that nothing else uses: its port stays free while the link is cut.
        let own = std::process::id().to_be_bytes();
        let listener = TcpListener::bind(SocketAddr::from(([127, 7, own[2], own[3]], 0)));
        let listener = listener.await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, to, passing: tokio::spawn(pass(listener, to)) }
    }

    pub async fn cut(&mut self) {
        self.passing.abort();
        let _ = (&mut self.passing).await;
    }

    pub async fn mend(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.passing = tokio::spawn(pass(listener, self.to));
    }
}

async fn pass(listener: TcpListener, to: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        connections.spawn(async move {
            if let Ok(mut far) = TcpStream::connect(to).await {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}
