//! HTTP/2 responses that their client does not take.
//!
//! A connection to which nothing can be written is ended by its write time-out. An HTTP/2 client may read, and answer
//! pings, and still give one of its responses no window; that one's task would wait for ever, with what it holds. So the
//! buffers of a response note when bytes of them are taken. If that goes on too slowly, the task is dropped, which resets
//! the stream and leaves its siblings alone.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, sleep};

/// What a client must take within the time-out, if there is as much: a byte now and then would do for ever.
const STEP: usize = 16 << 10;

tokio::task_local! {
    /// Of the HTTP/2 stream whose task this is.
    static PROGRESS: Arc<Progress>;
}

/// Runs hyper's task of each HTTP/2 stream, and ends those that stall.
#[derive(Debug, Clone)]
pub struct Streams {
    pub patience: Duration,
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        let (progress, patience) = (Arc::<Progress>::default(), self.patience);
        let watched = Arc::clone(&progress);
        tokio::spawn(PROGRESS.scope(progress, async move {
            tokio::select! {
                _ = stream => {}
                () = is_past(patience, || watched.lock().moved) => tracing::debug!("response is not taken, stream reset"),
            }
        }));
    }
}

/// Returns when the moment, which may be moved meanwhile, is `patience` ago.
pub async fn is_past(patience: Duration, moment: impl Fn() -> Option<Instant>) {
    loop {
        let waited = moment().map_or(Duration::ZERO, |moment| moment.elapsed());
        if waited >= patience {
            return;
        }
        sleep(patience - waited).await;
    }
}

/// What of a response is on its way.
#[derive(Debug, Default)]
struct Progress(Mutex<Pieces>);

#[derive(Debug, Default)]
struct Pieces {
    count: usize,
    /// Bytes that were taken since `moved`.
    taken: usize,
    /// When there was progress; none if nothing is on its way.
    moved: Option<Instant>,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, Pieces> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self) {
        let mut pieces = self.lock();
        pieces.count += 1;
        pieces.moved.get_or_insert_with(Instant::now);
    }

    fn take(&self, bytes: usize) {
        let mut pieces = self.lock();
        pieces.taken += bytes;
        if pieces.taken >= STEP {
            (pieces.taken, pieces.moved) = (0, Some(Instant::now()));
        }
    }

    fn finish(&self) {
        let mut pieces = self.lock();
        pieces.count -= 1;
        (pieces.taken, pieces.moved) = (0, (pieces.count > 0).then(Instant::now));
    }
}

/// Bytes of a response on their way.
#[derive(Debug)]
pub struct Piece {
    bytes: Bytes,
    progress: Option<Arc<Progress>>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(progress) = &self.progress {
            progress.take(count);
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            progress.finish();
        }
    }
}

/// The body of a response that tells how it gets on, if it is sent over HTTP/2.
pub struct Watched {
    inner: Body,
    /// The last byte, if it was held back.
    last: Bytes,
    progress: Option<Arc<Progress>>,
}

/// To be called in the task that sends the response.
pub fn watch(response: Response<Body>) -> Response<Watched> {
    let progress = PROGRESS.try_with(Arc::clone).ok();
    response.map(|inner| Watched { inner, last: Bytes::new(), progress })
}

impl Watched {
    fn piece(&self, bytes: Bytes) -> Frame<Piece> {
        let progress = self.progress.clone();
        if let Some(progress) = &progress {
            progress.send();
        }
        Frame::data(Piece { bytes, progress })
    }
}

impl http_body::Body for Watched {
    type Data = Piece;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, axum::Error>>> {
        if !self.last.is_empty() {
            let last = std::mem::take(&mut self.last);
            return Poll::Ready(Some(Ok(self.piece(last))));
        }
        let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(cx)?) else { return Poll::Ready(None) };
        let mut data = match frame.into_data() {
            Ok(data) => data,
            Err(other) => return Poll::Ready(other.into_trailers().ok().map(|trailers| Ok(Frame::trailers(trailers)))),
        };
        // The last byte goes by itself: hyper takes it when there is room for it, and then all before it has been sent.
        // Else the task would end with what the client has not taken, and nobody would look after that.
        if self.progress.is_some() && data.len() > 1 && self.inner.is_end_stream() {
            self.last = data.split_off(data.len() - 1);
        }
        Poll::Ready(Some(Ok(self.piece(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.last.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.last.is_empty() { self.inner.size_hint() } else { SizeHint::with_exact(1) }
    }
}

#[cfg(test)]
#[path = "stall_tests.rs"]
mod tests;
