//! Whether an application is well: it answers over HTTP with a status below 400.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use service::shutdown::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How soon a port that refuses is tried again.
const AGAIN: Duration = Duration::from_millis(20);
/// How long an answer may take at most.
const ANSWER: Duration = Duration::from_secs(10);

/// How to ask.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'a> {
    /// Its port.
    pub port: u16,
    /// The path; `/health`, then `/` unless set.
    pub path: Option<&'a str>,
    /// How often.
    pub attempts: u32,
    /// Between two attempts.
    pub interval: Duration,
}

/// Why it is not well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unwell {
    /// It is gone, in words.
    Gone(String),
    /// It never answered well; the last answer in words.
    Never(String),
    /// The exporter stops.
    Stopped,
}

impl Probe<'_> {
    /// Asks until it is well. `gone` tells that asking is in vain; it is called now and then.
    ///
    /// # Errors
    /// See [`Unwell`].
    pub async fn until_well<G>(
        &self,
        shutdown: &Shutdown,
        mut gone: impl FnMut() -> G,
    ) -> Result<(), Unwell>
    where
        G: Future<Output = Option<String>>,
    {
        let mut last = String::new();
        for _ in 0..self.attempts {
            let until = Instant::now() + self.interval;
            loop {
                if shutdown.drain.is_cancelled() {
                    return Err(Unwell::Stopped);
                }
                if let Some(reason) = gone().await {
                    return Err(Unwell::Gone(reason));
                }
                match self.ask().await {
                    Ok(()) => return Ok(()),
                    Err(Answer::Refused) => {
                        last = format!("port {} refuses connections", self.port);
                        sleep(AGAIN).await;
                    }
                    Err(Answer::Unwell(what)) => {
                        last = what;
                        // It answers, and not well: that is one attempt.
                        let pause = (Instant::now() + Duration::from_millis(250)).min(until);
                        sleep_until(pause).await;
                        while Instant::now() < until {
                            if let Some(reason) = gone().await {
                                return Err(Unwell::Gone(reason));
                            }
                            sleep_until((Instant::now() + Duration::from_millis(250)).min(until))
                                .await;
                        }
                    }
                }
                if Instant::now() >= until {
                    break;
                }
            }
        }
        Err(Unwell::Never(last))
    }

    /// Asks once.
    async fn ask(&self) -> Result<(), Answer> {
        let paths: &[&str] = match &self.path {
            Some(path) => std::slice::from_ref(path),
            None => &["/health", "/"],
        };
        let mut last = Answer::Refused;
        for path in paths {
            // What stands behind a '?' may be a secret.
            let shown = path.split('?').next().unwrap_or_default();
            match get(self.port, path, self.interval.clamp(Duration::from_secs(1), ANSWER)).await {
                Ok(status) if (200..400).contains(&status) => return Ok(()),
                Ok(status) => last = Answer::Unwell(format!("GET {shown} answers {status}")),
                Err(Answer::Refused) => return Err(Answer::Refused),
                Err(Answer::Unwell(what)) => last = Answer::Unwell(format!("GET {shown}: {what}")),
            }
        }
        Err(last)
    }
}

enum Answer {
    Refused,
    Unwell(String),
}

async fn get(port: u16, path: &str, within: Duration) -> Result<u16, Answer> {
    let mut stream = None;
    // `localhost` is either, and some listen on one of them only.
    for address in [
        SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
    ] {
        if let Ok(Ok(open)) = timeout(Duration::from_secs(1), TcpStream::connect(address)).await {
            stream = Some(open);
            break;
        }
    }
    let Some(mut stream) = stream else { return Err(Answer::Refused) };
    let exchange = async {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: pm2-exporter\r\n\
             Accept: */*\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        let mut head = Vec::with_capacity(64);
        let mut piece = [0u8; 256];
        while head.len() < 16 {
            match stream.read(&mut piece).await {
                Ok(0) => break,
                Ok(read) => head.extend_from_slice(&piece[..read]),
                Err(error) => return Err(error.to_string()),
            }
        }
        let line = String::from_utf8_lossy(&head);
        line.strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5))
            .and_then(|status| status.parse().ok())
            .ok_or_else(|| "the answer is not HTTP".to_owned())
    };
    match timeout(within, exchange).await {
        Ok(Ok(status)) => Ok(status),
        Ok(Err(what)) => Err(Answer::Unwell(what)),
        Err(_) => Err(Answer::Unwell(format!("no answer within {within:?}"))),
    }
}

/// Whether a path may be asked for.
///
/// # Errors
/// What it may be.
pub fn path(text: &str) -> Result<(), String> {
    let plain = |byte: u8| (0x21..0x7f).contains(&byte);
    if text.starts_with('/') && text.len() <= 1024 && text.bytes().all(plain) {
        return Ok(());
    }
    Err("health_path: is not a path: it begins with '/', without spaces".to_owned())
}

/// A port that is free now, on every address.
///
/// # Errors
/// There is none.
pub fn spare_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?.local_addr()?.port())
}

/// Whether nobody has it.
pub fn is_spare(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}
