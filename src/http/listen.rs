//! Accepts connections, bounds how many there are and how long they may idle, and ends them.
//!
//! Past `max_connections`, connections wait in the system's backlog until others end: a refusal would need a connection
//! too.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Response, Version};
use futures::TryFutureExt;
use futures::future::MapOk;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use super::stall::{self, Streams, Watched, is_past};
use super::{Api, router};
use crate::settings::HttpSettings;

/// What one connection may hold of a response that its client does not take.
const SEND_BUFFER: usize = 256 << 10;
/// What the system may hold of it besides. It would let it grow to megabytes, and a container pays for that, too.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT: u32 = 128 << 10;
/// Flow-control windows for request bodies over HTTP/2.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
const MAX_HEADER_BYTES: u32 = 32 << 10;
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// After an error of `accept` that is not the connection's fault (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown`. Then readiness is off, live reads end, requests under way are finished and the engine's
/// commits are settled, all within `drain_timeout`; what is left is cut off.
pub async fn serve(listener: TcpListener, api: Arc<Api>, shutdown: impl Future<Output = ()>) {
    let server = Server::new(&api);
    tokio::select! {
        () = server.accept_all(&listener) => {}
        () = shutdown => {}
    }
    drop(listener);
    tracing::info!(connections = server.connections.len(), "stopping");
    let deadline = Instant::now() + api.settings.drain_timeout;
    api.stopping.cancel();
    server.finish(deadline).await;
    if tokio::time::timeout_at(deadline, api.engine.drain()).await.is_err() {
        tracing::warn!("commits under way were not settled in time");
    }
    tracing::info!("stopped");
}

struct Server {
    builder: auto::Builder<Streams>,
    router: Router,
    settings: HttpSettings,
    /// Connections are to take no more requests, and to end with those that they have.
    stopping: CancellationToken,
    /// Every connection's task.
    connections: TaskTracker,
    /// Cuts off what has not ended in time.
    abort: CancellationToken,
    room: Arc<Semaphore>,
}

impl Server {
    fn new(api: &Arc<Api>) -> Server {
        let settings = api.settings.clone();
        Server {
            builder: builder(&settings),
            router: router(Arc::clone(api)),
            stopping: api.stopping.clone(),
            connections: TaskTracker::new(),
            abort: CancellationToken::new(),
            room: Arc::new(Semaphore::new(usize::try_from(settings.max_connections).unwrap_or(Semaphore::MAX_PERMITS))),
            settings,
        }
    }

    async fn accept_all(&self, listener: &TcpListener) {
        loop {
            let Ok(permit) = Arc::clone(&self.room).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => self.start(stream, permit),
                Err(error) => {
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn start(&self, stream: TcpStream, permit: OwnedSemaphorePermit) {
        // Small events must not wait for the acknowledgement of earlier ones.
        let _ = stream.set_nodelay(true);
        limit_unsent(&stream);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.settings.write_stall_timeout));
        let asked = Arc::<Asked>::default();
        let service = TowerToHyperService::new(Requests { router: self.router.clone(), asked: Arc::clone(&asked) });
        let connection = self.builder.serve_connection(TokioIo::new(Box::pin(stream)), service).into_owned();
        let (stopping, abort) = (self.stopping.clone(), self.abort.clone());
        let (header_timeout, idle_timeout) = (self.settings.header_timeout, self.settings.idle_timeout);
        self.connections.spawn(async move {
            let _permit = permit;
            let mut connection = std::pin::pin!(connection);
            let mut never_asks = std::pin::pin!(asked.nothing(header_timeout));
            let mut idles = std::pin::pin!(is_past(idle_timeout, || asked.last()));
            let mut is_ending = false;
            loop {
                tokio::select! {
                    ended = &mut connection => {
                        if let Err(error) = ended {
                            tracing::debug!(%error, "connection");
                        }
                        return;
                    }
                    () = abort.cancelled() => return,
                    () = &mut never_asks => return,
                    () = stopping.cancelled(), if !is_ending => {}
                    () = &mut idles, if !is_ending => {}
                }
                connection.as_mut().graceful_shutdown();
                is_ending = true;
            }
        });
    }

    /// Lets connections finish the requests they have, until `deadline`.
    async fn finish(self, deadline: Instant) {
        self.connections.close();
        if tokio::time::timeout_at(deadline, self.connections.wait()).await.is_err() {
            tracing::warn!(connections = self.connections.len(), "requests under way are cut off");
        }
        self.abort.cancel();
    }
}

fn builder(settings: &HttpSettings) -> auto::Builder<Streams> {
    let mut builder = auto::Builder::new(Streams { patience: settings.write_stall_timeout });
    builder
        .http1()
        .timer(TokioTimer::new())
        // Also bounds how long a kept-alive connection idles: the timer runs while it waits for the next request.
        .header_read_timeout(settings.idle_timeout)
        .max_buf_size(SEND_BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(settings.http2_streams)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEADER_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL);
    builder
}

/// Keeps what waits in the system small: what a stalled client has not taken stays here, where it is shared and counted.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn limit_unsent(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT);
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn limit_unsent(_: &TcpStream) {}

/// What a connection has asked for.
#[derive(Default)]
struct Asked {
    anything: CancellationToken,
    /// When it last asked over HTTP/2. Over HTTP/1.1 hyper looks after that.
    last: Mutex<Option<Instant>>,
}

impl Asked {
    fn note(&self, version: Version) {
        self.anything.cancel();
        if version == Version::HTTP_2 {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }

    fn last(&self) -> Option<Instant> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns if there is no request in time. Nothing else limits how long the first bytes may take: hyper's timer starts
    /// only when it knows which version of HTTP is spoken.
    async fn nothing(&self, patience: Duration) {
        if tokio::time::timeout(patience, self.anything.cancelled()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    }
}

/// Notes when a connection asks for something, and how HTTP/2 responses get on.
#[derive(Clone)]
struct Requests {
    router: Router,
    asked: Arc<Asked>,
}

type Request = hyper::Request<hyper::body::Incoming>;

impl Service<Request> for Requests {
    type Response = Response<Watched>;
    type Error = <Router as Service<Request>>::Error;
    type Future = MapOk<<Router as Service<Request>>::Future, fn(Response<Body>) -> Response<Watched>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        Service::<Request>::poll_ready(&mut self.router, cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        self.asked.note(request.version());
        self.router.call(request).map_ok(stall::watch)
    }
}
