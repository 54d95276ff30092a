//! Bodies of requests come within a time, and a connection is told how far its bodies are.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::phase::{Doing, Phase};

/// The body of a request: it fails when it is not whole in time, counted from the first wait for
/// it.
pub(crate) struct Timed<B> {
    body: B,
    within: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
    late: Arc<AtomicBool>,
    phase: Phase,
}

impl<B> Timed<B> {
    /// `late` is set when the time is over.
    pub(crate) fn new(body: B, within: Duration, late: Arc<AtomicBool>, phase: Phase) -> Self {
        Self { body, within, deadline: None, late, phase }
    }
}

impl<B> Body for Timed<B>
where
    B: Body + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.phase.change(Doing::Body, Doing::Asked);
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        self.phase.change(Doing::Asked, Doing::Body);
        let within = self.within;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(within)));
        ready!(deadline.as_mut().poll(cx));
        self.late.store(true, Ordering::Relaxed);
        Poll::Ready(Some(Err("the body took too long".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer.
pub(crate) struct Followed<B> {
    body: B,
    phase: Phase,
}

impl<B: Body> Followed<B> {
    /// Tells the phase what kind of body it is, and when it has ended.
    pub(crate) fn new(body: B, phase: Phase) -> Self {
        let is_known = body.size_hint().exact().is_some();
        phase.set(if is_known { Doing::Answer } else { Doing::Stream });
        Self { body, phase }
    }
}

impl<B: Body + Unpin> Body for Followed<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Followed<B> {
    fn drop(&mut self) {
        self.phase.set(Doing::Ended);
    }
}
