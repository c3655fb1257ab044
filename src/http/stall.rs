//! HTTP/2 responses that their client does not take.
//!
//! A connection to which nothing can be written is ended by its write time-out. An HTTP/2 client may read, and answer
//! pings, and still give one of its responses no window; that one's task would wait for ever, with what it holds. So a
//! response is handed to hyper in small pieces: hyper asks for the next one when the client has given room for the last.
//! If it does not ask in time, the task is dropped, which resets the stream and leaves its siblings alone.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, sleep};

/// What a client must take within the time-out. No larger than the frames that a response is sent in.
const PIECE: usize = 16 << 10;

tokio::task_local! {
    /// Of the HTTP/2 stream whose task this is: since when hyper has had a piece without asking for another.
    static HANDED: Arc<Since>;
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
        let (handed, patience) = (Arc::<Since>::default(), self.patience);
        let watched = Arc::clone(&handed);
        tokio::spawn(HANDED.scope(handed, async move {
            tokio::select! {
                _ = stream => {}
                () = watched.is_past(patience) => tracing::debug!("response is not taken, stream reset"),
            }
        }));
    }
}

/// A response over HTTP/2 tells how it gets on; any other is left as it is.
pub fn watch(response: Response<Body>) -> Response<Body> {
    match HANDED.try_with(Arc::clone) {
        Ok(handed) => response.map(|inner| Body::new(Watched { inner, rest: Bytes::new(), handed })),
        Err(_) => response,
    }
}

/// A moment that is moved again and again.
#[derive(Debug, Default)]
pub struct Since(Mutex<Option<Instant>>);

impl Since {
    pub fn now(&self) {
        self.set(Some(Instant::now()));
    }

    fn set(&self, moment: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = moment;
    }

    /// Returns when the moment is `patience` ago.
    pub async fn is_past(&self, patience: Duration) {
        let mut pause = patience;
        loop {
            sleep(pause).await;
            let moment = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = moment.map_or(Duration::ZERO, |moment| moment.elapsed());
            if waited >= patience {
                return;
            }
            pause = patience - waited;
        }
    }
}

struct Watched {
    inner: Body,
    /// What was not handed over yet of a frame of `inner`.
    rest: Bytes,
    handed: Arc<Since>,
}

impl Watched {
    /// The last byte of a response goes by itself: once there is room for it, all before it has been sent. Else the task
    /// would end with the last piece, and nobody would look after that.
    fn piece(&mut self) -> Bytes {
        let is_last = self.inner.is_end_stream() && self.rest.len() > 1;
        let len = self.rest.len() - usize::from(is_last);
        self.rest.split_to(len.min(PIECE))
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.handed.set(None);
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let piece = self.piece();
        self.handed.now();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.inner.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    fn watched(inner: Body) -> (Watched, Arc<Since>) {
        let handed = Arc::<Since>::default();
        (Watched { inner, rest: Bytes::new(), handed: Arc::clone(&handed) }, handed)
    }

    #[tokio::test]
    async fn a_body_goes_in_small_pieces_and_its_last_byte_by_itself() {
        let whole = (0..PIECE * 2 + 10).map(|n| n as u8).collect::<Vec<_>>();
        let (mut body, _) = watched(Body::from(whole.clone()));
        assert_eq!(body.size_hint().exact(), Some(whole.len() as u64));
        let (mut lengths, mut got) = (Vec::new(), Vec::new());
        while let Some(frame) = body.frame().await {
            let piece = frame.ok().and_then(|frame| frame.into_data().ok()).unwrap_or_default();
            lengths.push(piece.len());
            got.extend_from_slice(&piece);
            assert_eq!(body.size_hint().exact(), Some((whole.len() - got.len()) as u64));
        }
        assert_eq!(lengths, [PIECE, PIECE, 9, 1]);
        assert_eq!(got, whole);
        assert!(body.is_end_stream());
        assert!(watched(Body::empty()).0.is_end_stream());
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_piece_that_is_not_taken_is_a_stall() {
        let patience = Duration::from_secs(30);
        let (mut body, handed) = watched(Body::from(vec![0; PIECE * 4]));
        let mut stalled = Box::pin(handed.is_past(patience));
        let stalls = async |stalled: &mut Pin<Box<_>>, within| tokio::time::timeout(within, stalled).await.is_ok();
        assert!(!stalls(&mut stalled, patience * 10).await, "nothing was handed over yet");
        for _ in 0..3 {
            assert!(body.frame().await.is_some());
            assert!(!stalls(&mut stalled, patience * 9 / 10).await, "it is taken in time");
        }
        let since = Instant::now();
        assert!(body.frame().await.is_some());
        assert!(stalls(&mut stalled, patience * 2).await);
        assert_eq!(since.elapsed().as_secs(), patience.as_secs());
    }

    #[tokio::test]
    async fn a_response_outside_of_a_stream_is_left_alone() {
        let response = watch(Response::new(Body::from(vec![0; PIECE * 2])));
        let first = response.into_body().frame().await;
        let first = first.and_then(Result::ok).and_then(|frame| frame.into_data().ok());
        assert_eq!(first.map(|piece| piece.len()), Some(PIECE * 2));
    }
}
