//! The connection to another replica: HTTP/2, one for all requests, made when it is needed and whenever it is lost.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// A request's body on its way through.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How often the other side is asked whether it is there, and how long it may take to answer: a process that was stopped
/// keeps its connections.
const PING_INTERVAL: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// What may be on its way on a connection, and of one request.
const WINDOW: u32 = 8 << 20;

/// Requests at a time, fewer than the other side takes on a connection.
const REQUESTS: usize = 500;

/// Why there is no answer.
#[derive(Debug)]
pub enum Unsent {
    /// The request was not sent, because there is no connection. Here it is.
    Unreachable(Request<Body>),
    /// Because the connection was lost.
    Lost(Request<Body>),
    /// Because there are too many under way.
    Busy(Request<Body>),
    /// It was sent, and certainly did nothing.
    Refused,
    /// It may have been carried out.
    Open,
}

#[derive(Debug)]
pub struct Link {
    address: String,
    sender: Mutex<Option<SendRequest<Body>>>,
    places: Semaphore,
}

impl Link {
    pub fn new(address: &str) -> Link {
        Link { address: address.to_owned(), sender: Mutex::new(None), places: Semaphore::new(REQUESTS) }
    }

    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Unsent> {
        let Ok(_place) = self.places.try_acquire() else { return Err(Unsent::Busy(request)) };
        let Some(mut sender) = self.sender().await else { return Err(Unsent::Unreachable(request)) };
        sender.try_send_request(request).await.map_err(|mut error| {
            tracing::debug!(address = self.address, error = %error.error(), "request to a replica failed");
            error.take_message().map_or(Unsent::Open, Unsent::Lost)
        })
    }

    async fn sender(&self) -> Option<SendRequest<Body>> {
        if let Some(sender) = self.lock().as_ref().filter(|sender| !sender.is_closed()) {
            return Some(sender.clone());
        }
        // Who comes meanwhile makes another one, and the last stays.
        let connected = timeout(CONNECT_TIMEOUT, self.connect()).await;
        let sender = match connected {
            Ok(Ok(sender)) => sender,
            Ok(Err(error)) => {
                tracing::debug!(address = self.address, error, "no connection to a replica");
                return None;
            }
            Err(_) => return None,
        };
        *self.lock() = Some(sender.clone());
        Some(sender)
    }

    async fn connect(&self) -> Result<SendRequest<Body>, String> {
        let stream = TcpStream::connect(&self.address).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let address = self.address.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(address, %error, "connection to a replica lost");
            }
        });
        Ok(sender)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<SendRequest<Body>>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
