//! Whole requests on a connection to a running server: bodies that are cut, too large, in pieces, or mutated.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use headwater::clock::{Clock, Ids};
use headwater::engine::Engine;
use headwater::http::{Api, serve};
use headwater::protocol::stream::{Body, Create};
use headwater::protocol::{ContentType, Lifetime, ReadFrom, StreamName};
use headwater::settings::{EngineSettings, HttpSettings};
use headwater::store::memory::MemoryStore;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::harness::{Input, run};
use crate::mutate::{Mutation, apply, mutations};
use crate::panics::panics;

const LARGEST: u64 = 1000;

struct Server {
    /// Of one thread, so that a panic of one of its tasks is seen on this one.
    runtime: Runtime,
    engine: Engine,
    address: std::net::SocketAddr,
    name: StreamName,
    /// What the stream holds.
    content: Cell<Vec<u8>>,
}

impl Server {
    fn start(http: HttpSettings) -> Server {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.unwrap_or_else(|e| panic!("{e}"));
        let name = StreamName::new("s").unwrap_or_else(|e| panic!("{e}"));
        let (engine, address) = runtime.block_on(async {
            let store = Arc::new(MemoryStore::new(Clock::system()));
            let settings = EngineSettings { commit_interval: Duration::ZERO, ..EngineSettings::default() };
            let engine = Engine::open(store, settings, Clock::system(), Ids::seeded(7)).await;
            let engine = engine.unwrap_or_else(|e| panic!("{e}"));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap_or_else(|e| panic!("{e}"));
            let address = listener.local_addr().unwrap_or_else(|e| panic!("{e}"));
            let token = CancellationToken::new();
            let api = Api::new(engine.clone(), http, Ids::seeded(8), token, Arc::new(String::new));
            tokio::spawn(serve(listener, api, std::future::pending()));
            (engine, address)
        });
        let server = Server { runtime, engine, address, name, content: Cell::default() };
        server.create();
        server
    }

    fn create(&self) {
        let create = Create {
            incarnation: self.engine.new_incarnation(),
            content_type: ContentType::new("text/plain").unwrap_or_default(),
            lifetime: Lifetime::Forever,
            closed: false,
            body: Body::default(),
        };
        let admission = self.engine.admit(1).unwrap_or_else(|e| panic!("{e}"));
        let created = self.runtime.block_on(self.engine.create(&self.name, create, admission));
        created.unwrap_or_else(|e| panic!("{e}"));
        self.content.take();
    }

    /// Says `request`, then that there is nothing more, and returns the answer.
    fn say(&self, request: &[u8]) -> Vec<u8> {
        self.runtime.block_on(async {
            let mut connection = TcpStream::connect(self.address).await.unwrap_or_else(|e| panic!("{e}"));
            // A server that has answered may close before it has read all.
            let _ = connection.write_all(request).await;
            let _ = connection.shutdown().await;
            let mut answer = Vec::new();
            let read = connection.read_to_end(&mut answer);
            let ended = tokio::time::timeout(Duration::from_secs(30), read).await;
            assert!(ended.is_ok(), "the connection does not end");
            answer
        })
    }

    /// The whole stream, from the engine; `None` if it is not there any more.
    fn stored(&self) -> Option<Vec<u8>> {
        self.runtime.block_on(async {
            let mut found = Vec::new();
            let mut from = ReadFrom::Start;
            loop {
                let page = self.engine.locate(&self.name, from).await.ok()?;
                found.extend_from_slice(&self.engine.fetch(&self.name, &page).await.ok()?.0);
                if page.reaches_tail() {
                    return Some(found);
                }
                let incarnation = page.stream.incarnation;
                from = ReadFrom::At(headwater::protocol::Offset { position: page.end, incarnation });
            }
        })
    }

    fn is_well(&self) -> Result<(), String> {
        self.runtime.block_on(self.engine.ready()).map_err(|e| format!("the server is not ready any more: {e}"))
    }
}

/// The status of a well-formed answer; `None` if there is none.
fn status(answer: &[u8]) -> Result<Option<u16>, String> {
    if answer.is_empty() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(answer);
    let digits = text.strip_prefix("HTTP/1.1 ").or(text.strip_prefix("HTTP/1.0 ")).and_then(|rest| rest.get(..3));
    let status = digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| format!("not an answer: {text}"))?;
    // 501 is said of what this server does not have.
    if status >= 500 && status != 501 { Err(format!("an error of the server: {text}")) } else { Ok(Some(status)) }
}

/// An append, in one of the ways in which HTTP/1.1 delimits bodies.
#[derive(Debug, Clone)]
struct Append {
    body: Vec<u8>,
    /// In pieces of these lengths, if not in one with a length.
    pieces: Option<Vec<usize>>,
    /// Piece lengths with an extension and in capital letters, and a trailer at the end.
    is_ornate: bool,
}

impl Append {
    fn request(&self) -> Vec<u8> {
        let mut request =
            b"POST /v1/stream/s HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\nconnection: close\r\n".to_vec();
        let Some(pieces) = &self.pieces else {
            request.extend(format!("content-length: {}\r\n\r\n", self.body.len()).bytes());
            request.extend(&self.body);
            return request;
        };
        request.extend(b"transfer-encoding: chunked\r\n\r\n");
        let mut rest = &self.body[..];
        for length in pieces.iter().chain([&usize::MAX]) {
            let (piece, after) = rest.split_at((*length).min(rest.len()));
            if !piece.is_empty() {
                let length =
                    if self.is_ornate { format!("0{:X};a=\"b\"", piece.len()) } else { format!("{:x}", piece.len()) };
                request.extend(format!("{length}\r\n").bytes());
                request.extend(piece);
                request.extend(b"\r\n");
            }
            rest = after;
        }
        request.extend(if self.is_ornate { &b"0\r\nx: y\r\n\r\n"[..] } else { b"0\r\n\r\n" });
        request
    }

    /// What the server must say to it when all of it comes.
    fn expected(&self) -> u16 {
        match self.body.len() as u64 {
            0 => 400,
            length if length > LARGEST => 413,
            _ => 204,
        }
    }
}

#[derive(Debug, Clone)]
enum Case {
    Whole(Append),
    Cut(Append, Index),
    Mutated(Append, Vec<Mutation>),
}

impl Input for Case {}

fn cases() -> impl Strategy<Value = Case> {
    let body = prop_oneof![
        5 => vec(any::<u8>(), 0..60),
        1 => vec(b'a'..=b'z', LARGEST as usize - 2..LARGEST as usize + 3),
        1 => vec(b'a'..=b'z', 0..3000)
    ];
    let append = (body, proptest::option::of(vec(0usize..400, 0..4)), any::<bool>())
        .prop_map(|(body, pieces, is_ornate)| Append { body, pieces, is_ornate });
    prop_oneof![
        1 => append.clone().prop_map(Case::Whole),
        2 => (append.clone(), any::<Index>()).prop_map(|(append, at)| Case::Cut(append, at)),
        4 => (append, mutations()).prop_map(|(append, mutations)| Case::Mutated(append, mutations)),
    ]
}

fn holds(server: &Server, case: &Case) -> Result<(), String> {
    let before = panics();
    let mut content = server.content.take();
    match case {
        Case::Whole(append) => {
            let status = status(&server.say(&append.request()))?;
            if status != Some(append.expected()) {
                return Err(format!("{status:?} instead of {}", append.expected()));
            }
            if append.expected() == 204 {
                content.extend_from_slice(&append.body);
            }
        }
        Case::Cut(append, at) => {
            let request = append.request();
            let status = status(&server.say(&request[..at.index(request.len())]))?;
            if status.is_some_and(|status| status < 400) {
                return Err(format!("{status:?} to a request that was cut"));
            }
        }
        Case::Mutated(append, mutations) => {
            status(&server.say(&apply(&append.request(), mutations)))?;
            // It may have said something else, and been heard.
            match server.stored() {
                Some(stored) if stored.starts_with(&content) => content = stored,
                Some(_) => return Err("what was stored before is not there any more".to_owned()),
                None => server.create(),
            }
        }
    }
    if server.stored().as_ref() != Some(&content) && !matches!(case, Case::Mutated(..)) {
        return Err("the stream does not hold what was acknowledged".to_owned());
    }
    // A short stream is read faster.
    if content.len() > 1 << 20 {
        let deleted = server.runtime.block_on(server.engine.delete(&server.name));
        deleted.map_err(|e| e.to_string())?;
        server.create();
        content.clear();
    }
    server.content.set(content);
    if panics() > before {
        return Err("a task of the server panics".to_owned());
    }
    server.is_well()
}

#[test]
fn bodies_on_the_wire() {
    let settings = HttpSettings {
        max_append_bytes: LARGEST,
        sse_life: Duration::from_secs(1),
        long_poll_hold: Duration::from_millis(100),
        ..HttpSettings::default()
    };
    let server = Server::start(settings);
    let counts = Cell::new([0; 3]);
    let cases = run("wire", 600, cases(), |case| {
        let mut kinds = counts.get();
        kinds[match case {
            Case::Whole(_) => 0,
            Case::Cut(..) => 1,
            Case::Mutated(..) => 2,
        }] += 1;
        counts.set(kinds);
        holds(&server, case)
    });
    let [whole, cut, mutated] = counts.get();
    println!("wire: {cases} requests, {whole} whole, {cut} cut, {mutated} mutated");
}

/// A length that is only promised is not believed.
#[test]
fn a_promised_gigabyte_takes_no_memory() {
    let server = Server::start(HttpSettings { max_append_bytes: 200 << 20, ..HttpSettings::default() });
    let head = "POST /v1/stream/s HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\n";
    for length in ["content-length: 209715200\r\n\r\nab", "transfer-encoding: chunked\r\n\r\nC800000\r\nab"] {
        let mut answer = Vec::new();
        let memory = allocation_counter::measure(|| answer = server.say(format!("{head}{length}").as_bytes()));
        assert!(status(&answer).is_ok_and(|status| status.is_none_or(|status| status == 400)), "{answer:?}");
        assert!(memory.bytes_max < 3 << 20, "{length:?} takes {} bytes", memory.bytes_max);
        assert_eq!(server.stored(), Some(Bytes::new().to_vec()));
    }
    assert!(server.is_well().is_ok());
}
