//! Answers of an S3-compatible store, cut and mutated: nothing panics, and what was cut is never taken for the whole,
//! nor for the news that there is no such object.

use std::cell::Cell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use headwater::clock::Ids;
use headwater::store::s3::{AccessKeys, S3Options, S3Store};
use headwater::store::{Condition, Put, Store, StoreError, Version};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Input, run};
use crate::mutate::{Mutation, apply, mutations};
use crate::panics::panics;

/// A request, and an answer that a store may give to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Get,
    GetMissing,
    GetRange,
    Put,
    PutConflict,
    List,
}

const ALL: [Asked; 6] = [Asked::Get, Asked::GetMissing, Asked::GetRange, Asked::Put, Asked::PutConflict, Asked::List];

/// How an answer says where its body ends.
#[derive(Debug, Clone, Copy)]
enum Framing {
    Length,
    Pieces,
    /// When the connection ends: nobody can tell whether it was cut, but for what the body itself says.
    Close,
}

const BODY: &str = "the object's bytes";
const ETAG: &str = "\"9b2cf535f27731c974343645a3985328\"";

impl Asked {
    fn answer(self, framing: Framing) -> Vec<u8> {
        let error =
            |code: &str| format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>");
        let etag = format!("ETag: {ETAG}\r\nLast-Modified: Sun, 06 Nov 1994 08:49:30 GMT\r\n");
        let (status, headers, body) = match self {
            Asked::Get => ("200 OK", etag, BODY.to_owned()),
            Asked::GetMissing => ("404 Not Found", String::new(), error("NoSuchKey")),
            Asked::GetRange => {
                let range = format!("Content-Range: bytes 4-9/{}\r\n", BODY.len());
                ("206 Partial Content", etag + &range, BODY[4..10].to_owned())
            }
            Asked::Put => ("200 OK", etag, String::new()),
            Asked::PutConflict => ("412 Precondition Failed", String::new(), error("PreconditionFailed")),
            Asked::List => ("200 OK", String::new(), listing()),
        };
        // S3 gives objects with a length, always.
        let is_object = matches!(self, Asked::Get | Asked::GetRange | Asked::Put);
        let (framing, body) = match framing {
            Framing::Length => (format!("Content-Length: {}\r\n", body.len()), body),
            _ if is_object => (format!("Content-Length: {}\r\n", body.len()), body),
            Framing::Pieces => {
                ("Transfer-Encoding: chunked\r\n".to_owned(), format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()))
            }
            Framing::Close => (String::new(), body),
        };
        let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nConnection: close\r\n";
        format!("HTTP/1.1 {status}\r\n{date}{headers}{framing}\r\n{body}").into_bytes()
    }
}

fn listing() -> String {
    let item = |key: &str| {
        format!(
            "<Contents><Key>p/{key}</Key><LastModified>1994-11-06T08:49:30.000Z</LastModified>\
             <ETag>&quot;x&quot;</ETag><Size>5</Size></Contents>"
        )
    };
    let items: String = ["log/0/1", "log/0/2", "log/0/3"].map(item).concat();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult><Name>b</Name><Prefix>p/log/</Prefix>\
         <KeyCount>3</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{items}</ListBucketResult>"
    )
}

/// What came of a request.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// The value as it is, or that there is none.
    Value(String),
    NotApplied,
    Unknown,
}

struct Bucket {
    runtime: tokio::runtime::Runtime,
    store: S3Store,
    next: Arc<Mutex<Vec<u8>>>,
}

impl Bucket {
    fn start() -> Bucket {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.unwrap_or_else(|e| panic!("{e}"));
        let next: Arc<Mutex<Vec<u8>>> = Arc::default();
        let answers = Arc::clone(&next);
        let store = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap_or_else(|e| panic!("{e}"));
            let address = listener.local_addr().unwrap_or_else(|e| panic!("{e}"));
            tokio::spawn(async move {
                while let Ok((connection, _)) = listener.accept().await {
                    let answer = answers.lock().unwrap_or_else(|e| panic!("{e}")).clone();
                    answer_with(connection, &answer).await;
                }
            });
            let text = |text: &str| text.to_owned();
            let keys = AccessKeys { access_key: text("AK"), secret_key: text("SK"), session_token: None };
            let options = S3Options {
                bucket: text("b"),
                prefix: text("p"),
                endpoint: Some(format!("http://{address}")),
                region: Some(text("eu-test-1")),
                path_style: true,
                keys: Some(keys),
                attempts: 1,
                ..S3Options::default()
            };
            S3Store::open(options, Ids::seeded(1)).await.unwrap_or_else(|e| panic!("{e}"))
        });
        Bucket { runtime, store, next }
    }

    fn ask(&self, asked: Asked, answer: &[u8]) -> Heard {
        *self.next.lock().unwrap_or_else(|e| panic!("{e}")) = answer.to_vec();
        let outcome = self.runtime.block_on(async {
            let asking = tokio::time::timeout(Duration::from_secs(20), self.send(asked));
            asking.await.unwrap_or_else(|_| panic!("no outcome in time"))
        });
        match outcome {
            Ok(value) => Heard::Value(value),
            Err(StoreError::NotApplied(_)) => Heard::NotApplied,
            Err(StoreError::Unknown(_)) => Heard::Unknown,
        }
    }

    async fn send(&self, asked: Asked) -> Result<String, StoreError> {
        let shown = |bytes: Option<Bytes>| bytes.map_or_else(|| "none".to_owned(), |bytes| format!("{bytes:?}"));
        match asked {
            Asked::Get | Asked::GetMissing => {
                let object = self.store.get("log/0/1").await?.value;
                Ok(shown(object.map(|object| object.body)))
            }
            Asked::GetRange => Ok(shown(self.store.get_range("log/0/1", 4..10).await?.value)),
            Asked::Put | Asked::PutConflict => {
                let condition = if asked == Asked::Put {
                    Condition::Absent
                } else {
                    Condition::Unchanged(Version(ETAG.to_owned()))
                };
                match self.store.put("log/0/1", Bytes::from_static(b"x"), condition).await?.value {
                    Put::Written(Version(etag)) => Ok(etag),
                    Put::Conflict => Ok("conflict".to_owned()),
                }
            }
            Asked::List => {
                let listing = self.store.list("log/", None, 1000).await?.value;
                let keys: Vec<String> = listing.items.into_iter().map(|item| item.key).collect();
                Ok(format!("{keys:?} {}", listing.more))
            }
        }
    }
}

async fn answer_with(mut connection: TcpStream, answer: &[u8]) {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match connection.read(&mut buffer).await {
            Ok(length) if length > 0 => head.extend_from_slice(&buffer[..length]),
            _ => return,
        }
    }
    let _ = connection.write_all(answer).await;
    let _ = connection.shutdown().await;
    // Until the client is done, or what it had sent would be answered with a reset.
    while connection.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
}

#[derive(Debug, Clone)]
struct Case {
    asked: Asked,
    framing: Framing,
    change: Change,
}

#[derive(Debug, Clone)]
enum Change {
    None,
    Cut(Index),
    Mutated(Vec<Mutation>),
}

impl Input for Case {}

fn cases() -> impl Strategy<Value = Case> {
    let framing = prop_oneof![Just(Framing::Length), Just(Framing::Pieces), Just(Framing::Close)];
    let change = prop_oneof![
        1 => Just(Change::None),
        6 => any::<Index>().prop_map(Change::Cut),
        6 => mutations().prop_map(Change::Mutated),
    ];
    (select(&ALL[..]), framing, change).prop_map(|(asked, framing, change)| Case { asked, framing, change })
}

fn holds(bucket: &Bucket, Case { asked, framing, change }: &Case) -> Result<(), String> {
    let before = panics();
    let whole = asked.answer(*framing);
    let expected = match asked {
        Asked::Get => format!("{:?}", Bytes::from(BODY)),
        Asked::GetRange => format!("{:?}", Bytes::from(&BODY[4..10])),
        Asked::GetMissing => "none".to_owned(),
        Asked::Put => ETAG.to_owned(),
        Asked::PutConflict => "conflict".to_owned(),
        Asked::List => "[\"log/0/1\", \"log/0/2\", \"log/0/3\"] false".to_owned(),
    };
    match change {
        Change::None => {
            let heard = bucket.ask(*asked, &whole);
            if heard != Heard::Value(expected) {
                return Err(format!("{heard:?}"));
            }
        }
        Change::Cut(at) => {
            let heard = bucket.ask(*asked, &whole[..at.index(whole.len())]);
            // What was cut may still be understood, but never as something else.
            if matches!(&heard, Heard::Value(value) if *value != expected) {
                return Err(format!("an answer that was cut is taken for {heard:?}"));
            }
            if matches!(asked, Asked::Put | Asked::PutConflict) && heard == Heard::NotApplied {
                return Err("a PUT whose answer was cut is said not to be applied".to_owned());
            }
        }
        Change::Mutated(mutations) => {
            let answer = apply(&whole, mutations);
            let mut heard = Heard::Unknown;
            let memory = allocation_counter::measure(|| heard = bucket.ask(*asked, &answer));
            if memory.bytes_max > 4 << 20 {
                return Err(format!("{} bytes of memory for {} of answer", memory.bytes_max, answer.len()));
            }
        }
    }
    if panics() > before { Err("it panics".to_owned()) } else { Ok(()) }
}

#[test]
fn answers_of_a_store() {
    let bucket = Bucket::start();
    let counts = Cell::new([0; 3]);
    let cases = run("s3-answer", 600, cases(), |case| {
        let mut kinds = counts.get();
        kinds[match case.change {
            Change::None => 0,
            Change::Cut(_) => 1,
            Change::Mutated(_) => 2,
        }] += 1;
        counts.set(kinds);
        holds(&bucket, case)
    });
    let [whole, cut, mutated] = counts.get();
    println!("s3-answer: {cases} answers, {whole} whole, {cut} cut, {mutated} mutated");
}
