//! A server to test, behind a socket or without one, and what it answers.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use headwater::clock::{Clock, Ids};
use headwater::engine::Engine;
use headwater::http::{Api, router, serve};
use headwater::settings::{EngineSettings, HttpSettings};
use headwater::store::Store;
use headwater::store::memory::MemoryStore;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

/// 2030-01-01, for clocks that tests move.
pub const START: u64 = 1_893_456_000_000;

pub struct Server {
    via: Via,
    pub stopping: CancellationToken,
}

#[derive(Clone)]
enum Via {
    Socket(reqwest::Client, String),
    Router(Router),
}

/// Ends a server that is behind a socket.
pub struct Stop {
    signal: oneshot::Sender<()>,
    pub ended: JoinHandle<()>,
}

impl Stop {
    pub fn send(self) -> JoinHandle<()> {
        let _ = self.signal.send(());
        self.ended
    }
}

/// Small pages, so that a test of paging needs no megabytes.
pub fn small_pages() -> EngineSettings {
    EngineSettings { page_bytes: 1024, ..EngineSettings::default() }
}

async fn api(settings: HttpSettings, engine: EngineSettings, clock: Clock, stopping: CancellationToken) -> Arc<Api> {
    let store = Arc::new(MemoryStore::new(clock.clone()));
    api_on(store, settings, engine, clock, Ids::seeded(7), stopping).await
}

async fn api_on(
    store: Arc<dyn Store>,
    settings: HttpSettings,
    engine: EngineSettings,
    clock: Clock,
    ids: Ids,
    stopping: CancellationToken,
) -> Arc<Api> {
    let engine = Engine::open(store, engine, clock, ids).await.unwrap_or_else(|e| panic!("{e}"));
    Api::new(engine, settings, Ids::seeded(8), stopping, Arc::new(|| "store_requests_total 1\n".to_owned()))
}

impl Server {
    /// Behind a socket.
    pub async fn start() -> Server {
        Server::start_with(HttpSettings::default()).await.0
    }

    pub async fn start_with(settings: HttpSettings) -> (Server, Stop) {
        Server::start_with_engine(settings, small_pages()).await
    }

    pub async fn start_with_engine(settings: HttpSettings, engine: EngineSettings) -> (Server, Stop) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap_or_else(|e| panic!("{e}"));
        let address = listener.local_addr().unwrap_or_else(|e| panic!("{e}"));
        let stopping = CancellationToken::new();
        let api = api(settings, engine, Clock::system(), stopping.clone()).await;
        let (signal, stop) = oneshot::channel::<()>();
        let until = async {
            if stop.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let ended = tokio::spawn(async move { serve(listener, api, until).await });
        let client = reqwest::Client::builder().no_proxy().build().unwrap_or_else(|e| panic!("{e}"));
        let server = Server { via: Via::Socket(client, format!("http://{address}")), stopping };
        (server, Stop { signal, ended })
    }

    /// Without a socket, on tokio's clock: for tests with paused time, and for paths that a client would tidy up.
    pub async fn in_process() -> Server {
        let stopping = CancellationToken::new();
        let api = api(HttpSettings::default(), small_pages(), Clock::tokio(START), stopping.clone()).await;
        Server { via: Via::Router(router(api)), stopping }
    }

    /// Like [`in_process`](Server::in_process), on a store that others may use, too. `number` tells the servers apart.
    pub async fn in_process_on(store: Arc<dyn Store>, clock: Clock, number: u64) -> Server {
        let stopping = CancellationToken::new();
        let (http, ids) = (HttpSettings::default(), Ids::seeded(number));
        let api = api_on(store, http, small_pages(), clock, ids, stopping.clone()).await;
        Server { via: Via::Router(router(api)), stopping }
    }

    /// `host:port`, of a server behind a socket.
    pub fn address(&self) -> &str {
        match &self.via {
            Via::Socket(_, base) => base.trim_start_matches("http://"),
            Via::Router(_) => panic!("there is no socket"),
        }
    }

    pub fn call(&self, method: &str, path: &str) -> Call {
        let method = method.parse().unwrap_or_else(|e| panic!("{method}: {e}"));
        Call { via: self.via.clone(), method, path: path.to_owned(), headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// `name` may have a query.
    pub fn get(&self, name: &str) -> Call {
        self.call("GET", &format!("/v1/stream/{name}"))
    }

    pub fn head(&self, name: &str) -> Call {
        self.call("HEAD", &format!("/v1/stream/{name}"))
    }

    pub fn put(&self, name: &str) -> Call {
        self.call("PUT", &format!("/v1/stream/{name}"))
    }

    pub fn post(&self, name: &str) -> Call {
        self.call("POST", &format!("/v1/stream/{name}"))
    }

    pub fn delete(&self, name: &str) -> Call {
        self.call("DELETE", &format!("/v1/stream/{name}"))
    }

    /// A new text stream with content; gives its tail.
    pub async fn text(&self, name: &str, content: &'static str) -> String {
        let reply = self.put(name).text(content).send().await;
        assert_eq!(reply.status, StatusCode::CREATED);
        reply.header("stream-next-offset").to_owned()
    }

    /// Appends text; gives the tail.
    pub async fn append(&self, name: &str, content: &'static str) -> String {
        let reply = self.post(name).text(content).send().await;
        assert_eq!(reply.status, StatusCode::NO_CONTENT);
        reply.header("stream-next-offset").to_owned()
    }
}

/// A request under construction.
pub struct Call {
    via: Via,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Call {
    pub fn with(mut self, name: &'static str, value: &str) -> Call {
        self.headers.append(name, HeaderValue::from_str(value).unwrap_or_else(|e| panic!("{value}: {e}")));
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Call {
        self.body = body.into();
        self
    }

    pub fn text(self, body: impl Into<Bytes>) -> Call {
        self.with("content-type", "text/plain").body(body)
    }

    pub fn json(self, body: impl Into<Bytes>) -> Call {
        self.with("content-type", "application/json").body(body)
    }

    pub fn producer(self, id: &str, epoch: u64, seq: u64) -> Call {
        self.with("producer-id", id).with("producer-epoch", &epoch.to_string()).with("producer-seq", &seq.to_string())
    }

    pub async fn send(self) -> Reply {
        let mut open = self.open().await;
        let mut body = Vec::new();
        while let Some(piece) = open.body.next().await {
            body.extend_from_slice(&piece);
        }
        Reply { status: open.status, headers: open.headers, body: Bytes::from(body) }
    }

    /// The response's head; the body comes when it is asked for.
    pub async fn open(self) -> Open {
        match self.via {
            Via::Socket(client, base) => {
                let request = client.request(self.method, base + &self.path).headers(self.headers).body(self.body);
                let response = request.send().await.unwrap_or_else(|e| panic!("{e}"));
                let (status, headers) = (response.status(), response.headers().clone());
                let body = response.bytes_stream().filter_map(|piece| async { piece.ok() }).boxed();
                Open { status, headers, body, text: String::new() }
            }
            Via::Router(mut router) => {
                let mut request = Request::builder().method(self.method).uri(self.path);
                request.headers_mut().unwrap_or_else(|| panic!("request")).extend(self.headers);
                let request = request.body(Body::from(self.body)).unwrap_or_else(|e| panic!("{e}"));
                let response = router.call(request).await.unwrap_or_else(|never| match never {});
                let (parts, body) = response.into_parts();
                let body = body.into_data_stream().filter_map(|piece| async { piece.ok() }).boxed();
                Open { status: parts.status, headers: parts.headers, body, text: String::new() }
            }
        }
    }
}

/// A whole response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn has(&self, name: &str) -> bool {
        self.headers.contains_key(name)
    }

    /// Empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The stable code of a problem.
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        assert_eq!(problem["status"], self.status.as_u16());
        problem["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// A response whose body is still coming.
pub struct Open {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: BoxStream<'static, Bytes>,
    text: String,
}

/// A server-sent event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub kind: String,
    pub data: String,
}

impl Event {
    /// A field of a control event; null if it has none of that name.
    pub fn field(&self, name: &str) -> serde_json::Value {
        assert_eq!(self.kind, "control", "{self:?}");
        let control: serde_json::Value = serde_json::from_str(&self.data).unwrap_or_default();
        control[name].clone()
    }
}

impl Open {
    /// The next event; `None` when the response has ended. Comments are skipped.
    pub async fn event(&mut self) -> Option<Event> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let fields = |name: &str| {
                    let lines = block.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                    lines.map(|value| value.strip_prefix(' ').unwrap_or(value)).collect::<Vec<_>>()
                };
                if let [kind] = fields("event")[..] {
                    return Some(Event { kind: kind.to_owned(), data: fields("data").join("\n") });
                }
            }
            let piece = self.body.next().await?;
            self.text.push_str(&String::from_utf8_lossy(&piece));
        }
    }

    /// All events until the end.
    pub async fn events(mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.event().await {
            events.push(event);
        }
        events
    }
}

/// Fails instead of waiting for ever for what should happen in a moment.
pub async fn soon<T>(happens: impl Future<Output = T>) -> T {
    let patience = std::time::Duration::from_secs(30);
    tokio::time::timeout(patience, happens).await.unwrap_or_else(|_| panic!("it does not happen"))
}
