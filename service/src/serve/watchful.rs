use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::Limits;
use crate::limits::{Doing, Phase};

/// A stream whose reads fail when the headers of a request take too long, and whose writes do
/// when nobody takes what is written. hyper's own header timeout also counts the quiet time
/// between requests, which may be long. It tells the phase when an answer stalls, and when it is
/// written to its end.
pub(super) struct Watchful<S> {
    stream: S,
    phase: Phase,
    allowed: Duration,
    deadline: Pin<Box<Sleep>>,
    stall_timeout: Duration,
    stall: Option<Pin<Box<Sleep>>>,
}

impl<S> Watchful<S> {
    pub(super) fn new(stream: S, phase: Phase, limits: &Limits) -> Self {
        let (allowed, stall_timeout) = (limits.header_timeout, limits.stall_timeout);
        let deadline = Box::pin(tokio::time::sleep(allowed));
        Self { stream, phase, allowed, deadline, stall_timeout, stall: None }
    }

    /// What became of a write, or that it waited for too long.
    fn written<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.phase.stalled(written.is_pending());
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let allowed = self.stall_timeout;
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(allowed)));
        ready!(stall.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watchful<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(cx, buf) {
            if buf.filled().len() > before && self.phase.get() == Doing::Quiet {
                self.phase.set(Doing::Head);
                let deadline = Instant::now() + self.allowed;
                self.deadline.as_mut().reset(deadline);
            }
            return Poll::Ready(result);
        }
        if self.phase.get() == Doing::Head {
            ready!(self.deadline.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watchful<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper asks for it when all that there is has been written.
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.phase.stalled(flushed.is_pending());
        if flushed.is_ready() {
            self.phase.change(Doing::Ended, Doing::Quiet);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
