//! Steady requests at a port, each on a connection of its own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const BETWEEN: Duration = Duration::from_millis(2);

/// What became of the requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) asked: u32,
    /// Refused, broken off, or not answered with 200.
    pub(crate) failed: u32,
    /// The longest time between the last good answer and the next one.
    pub(crate) gap: Duration,
}

/// A load that goes on.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Outcome>,
}

impl Load {
    pub(crate) fn start(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut outcome = Outcome::default();
            let mut last = Instant::now();
            while !told.load(Ordering::Relaxed) {
                outcome.asked += 1;
                if answers(port) {
                    outcome.gap = outcome.gap.max(last.elapsed());
                    last = Instant::now();
                } else {
                    outcome.failed += 1;
                }
                std::thread::sleep(BETWEEN);
            }
            outcome
        });
        Self { stop, thread }
    }

    pub(crate) fn end(self) -> anyhow::Result<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the load ended by itself"))
    }
}

/// Whether one request is answered with 200.
pub(crate) fn answers(port: u16) -> bool {
    let asked = || -> std::io::Result<bool> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer.starts_with(b"HTTP/1.1 200"))
    };
    asked().unwrap_or(false)
}
