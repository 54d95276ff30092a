//! P2 over real sockets: servers that say nothing, or one byte after the other, cost only themselves
//! a poll. That the others are asked in time, to the millisecond, is shown on a simulated clock
//! (`poller/src/simulation/starts.rs`).

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use e2e::scene::{self, Server};
use e2e::sim::{Settings, SimulatedFleet};
use e2e::{SOON, wait_until};

/// Servers of each kind.
const EACH: usize = 15;

/// How a server that is too slow is slow.
#[derive(Clone, Copy)]
enum Slow {
    /// It takes the request and says nothing.
    Silent,
    /// Its head never ends.
    Head,
    /// Its body never ends.
    Body,
}

/// Connections that a slow server has, and had.
#[derive(Default)]
struct Connections {
    open: AtomicUsize,
    most: AtomicUsize,
    all: AtomicUsize,
}

impl Slow {
    fn start(self) -> Result<(String, Arc<Connections>)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let connections = Arc::new(Connections::default());
        let counted = Arc::clone(&connections);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counted = Arc::clone(&counted);
                counted.all.fetch_add(1, Ordering::SeqCst);
                let open = counted.open.fetch_add(1, Ordering::SeqCst) + 1;
                counted.most.fetch_max(open, Ordering::SeqCst);
                std::thread::spawn(move || {
                    self.answer(stream);
                    counted.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Ok((url, connections))
    }

    /// Until the other side has had enough.
    fn answer(self, mut stream: TcpStream) {
        let drip: &[u8] = match self {
            Self::Silent => {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
                return;
            }
            Self::Head => b"x-drip: 1\r\n",
            Self::Body => b" ",
        };
        let begin: &[u8] = match self {
            Self::Body => b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n",
            _ => b"HTTP/1.1 200 OK\r\n",
        };
        let mut sent = stream.read(&mut [0; 4096]).and_then(|_| stream.write_all(begin));
        for byte in drip.iter().cycle() {
            if sent.is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
            sent = stream.write_all(std::slice::from_ref(byte));
        }
    }
}

#[tokio::test]
async fn servers_that_drip_cost_the_others_nothing() -> Result<()> {
    let settings = Settings { servers: EACH as u32, ..Settings::default() };
    let fleet = SimulatedFleet::start(settings, 0).await?;
    let mut servers: Vec<Server> =
        (0..EACH).map(|n| Server::open(&format!("good{n}"), fleet.url(n as u32))).collect();
    let mut slow = Vec::new();
    for (name, kind) in [("silent", Slow::Silent), ("head", Slow::Head), ("body", Slow::Body)] {
        for number in 0..EACH {
            let (url, connections) = kind.start()?;
            let name = format!("{name}{number}");
            servers.push(Server::open(&name, url));
            slow.push((name, connections));
        }
    }
    let poller = scene::poller(&servers, scene::UNHURRIED).await?;
    wait_until("each slow one was given up twice", 2 * SOON, async || {
        let again = |(_, it): &(_, Arc<Connections>)| it.all.load(Ordering::SeqCst) >= 3;
        slow.iter().all(again).then_some(())
    })
    .await?;
    for (name, connections) in &slow {
        let server = poller.wait_for(name, "offline").await?;
        assert_eq!(server["reason"], "timeout", "{server}");
        let most = connections.most.load(Ordering::SeqCst);
        assert!(most <= 2, "{name}: {most} connections at a time");
    }
    let page = poller.metrics().await?;
    let polls = |result: &str| page.value("pm2_poller_polls_total", &[("result", result)]);
    let given_up = polls("timeout")?;
    assert!(given_up >= 2.0 * slow.len() as f64, "{given_up}");
    for number in 0..EACH {
        let name = format!("good{number}");
        assert_eq!(page.value("pm2_server_up", &[("server", &name)])?, 1.0, "{name}");
        let told = poller.events(&name).await?;
        assert!(told.iter().all(|event| event["kind"] != "server_offline"), "{told:?}");
    }
    // Each of them was asked whenever it was its turn, and not once for every one that hung.
    assert!(polls("success")? >= given_up / 3.0, "{} and {given_up}", polls("success")?);
    Ok(())
}
