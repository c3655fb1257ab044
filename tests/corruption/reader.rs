//! Readers in every mode, and the judgement of what they are given.

use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use headwater::engine::{Engine, EngineError};
use headwater::protocol::{Incarnation, Offset, ReadFrom};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use tower_service::Service;

use crate::bucket::Stream;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    CatchUp,
    LongPoll,
    Sse,
}

/// How a read ended that gave nothing wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// At the stream's end, with all its bytes.
    Whole,
    /// The server said that it cannot: its status and code.
    Refused(u16, String),
    /// The answer was broken off, so that the client knows.
    BrokenOff,
}

/// What must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// Fewer bytes than there are, with a clean end; or that there is no such stream, or another one in its place.
    Less(String),
    Other(String),
}

impl From<String> for Wrong {
    fn from(what: String) -> Wrong {
        Wrong::Other(what)
    }
}

impl From<&str> for Wrong {
    fn from(what: &str) -> Wrong {
        Wrong::Other(what.to_owned())
    }
}

fn position(headers: &HeaderMap) -> Option<u64> {
    headers.get("stream-next-offset")?.to_str().ok()?.parse::<Offset>().ok().map(|offset| offset.position)
}

impl Stream {
    pub fn tail(&self) -> u64 {
        self.content.len() as u64
    }

    /// What the protocol serves for a range.
    fn served(&self, start: u64, end: u64) -> Vec<u8> {
        let bytes = &self.content[start as usize..end as usize];
        if !self.is_json() {
            return bytes.to_vec();
        }
        [b"[", bytes.strip_suffix(b",").unwrap_or(bytes), b"]"].concat()
    }

    fn check(&self, start: u64, end: u64, got: &[u8]) -> Result<(), Wrong> {
        if end < start || end > self.tail() {
            return Err(format!("bytes {start}..{end} of a stream of {}", self.tail()).into());
        }
        if got == self.served(start, end) { Ok(()) } else { Err(format!("other bytes {start}..{end}").into()) }
    }

    fn check_end(&self, at: u64) -> Result<Ended, Wrong> {
        if at == self.tail() {
            return Ok(Ended::Whole);
        }
        Err(Wrong::Less(format!("it ends at {at} instead of {}", self.tail())))
    }
}

pub struct Reader {
    pub router: Router,
    pub engine: Engine,
}

impl Reader {
    /// Reads from `start` to the end.
    pub async fn read(&self, stream: &Stream, mode: Mode, start: u64) -> Result<Ended, Wrong> {
        let reading = async {
            match mode {
                Mode::Sse => self.read_events(stream, start).await,
                _ => self.read_pages(stream, mode, start).await,
            }
        };
        let ended = tokio::time::timeout(std::time::Duration::from_secs(300), reading).await;
        ended.unwrap_or_else(|_| Err("it does not end".into()))
    }

    async fn get(&self, stream: &Stream, at: u64, live: &str) -> http::Response<Body> {
        let at = Offset { position: at, incarnation: Incarnation::ANY };
        let uri = format!("/v1/stream/{}?offset={at}{live}", stream.name);
        let request = Request::get(uri).body(Body::empty()).unwrap_or_else(|e| panic!("{e}"));
        self.router.clone().call(request).await.unwrap_or_else(|never| match never {})
    }

    async fn read_pages(&self, stream: &Stream, mode: Mode, start: u64) -> Result<Ended, Wrong> {
        let mut at = start;
        loop {
            let live = if mode == Mode::LongPoll { "&live=long-poll" } else { "" };
            let (head, body) = self.get(stream, at, live).await.into_parts();
            if head.status == StatusCode::NO_CONTENT && mode == Mode::LongPoll {
                return stream.check_end(at);
            }
            if head.status != StatusCode::OK {
                return refused(head.status, &head.headers, body).await;
            }
            let Ok(body) = body.collect().await else { return Ok(Ended::BrokenOff) };
            let end = position(&head.headers).ok_or("there is no next offset")?;
            stream.check(at, end, &body.to_bytes())?;
            if head.headers.contains_key("stream-up-to-date") {
                let says_closed = head.headers.contains_key("stream-closed");
                if says_closed != stream.is_closed {
                    return Err(Wrong::Less(format!("closed: {says_closed}")));
                }
                return stream.check_end(end);
            }
            if end == at {
                return Err(format!("it does not get further than {at}").into());
            }
            at = end;
        }
    }

    async fn read_events(&self, stream: &Stream, start: u64) -> Result<Ended, Wrong> {
        let (head, body) = self.get(stream, start, "&live=sse").await.into_parts();
        if head.status != StatusCode::OK {
            return refused(head.status, &head.headers, body).await;
        }
        let is_base64 = head.headers.contains_key("stream-sse-data-encoding");
        let mut body = body.into_data_stream();
        let (mut text, mut data, mut at) = (String::new(), Vec::new(), start);
        loop {
            while let Some((event, rest)) = text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                text = rest;
                if let Some(lines) = event.strip_prefix("event: data\n") {
                    let lines = lines.lines().map(|line| line.trim_start_matches("data:"));
                    let line = |line: &str| line.strip_prefix(' ').unwrap_or(line).to_owned();
                    let joined = lines.map(line).collect::<Vec<_>>().join("\n");
                    data = if is_base64 { STANDARD.decode(joined).map_err(|e| e.to_string())? } else { joined.into() };
                } else if let Some(json) = event.strip_prefix("event: control\ndata:") {
                    let control: serde_json::Value = serde_json::from_str(json).map_err(|e| e.to_string())?;
                    let next = control["streamNextOffset"].as_str().and_then(|token| token.parse::<Offset>().ok());
                    let end = next.ok_or("there is no next offset")?.position;
                    let got = if data.is_empty() { stream.served(at, at) } else { std::mem::take(&mut data) };
                    stream.check(at, end, &got)?;
                    at = end;
                    if control["upToDate"] == true {
                        return stream.check_end(at);
                    }
                }
            }
            match body.next().await {
                Some(Ok(piece)) => text.push_str(&String::from_utf8_lossy(&piece)),
                Some(Err(_)) => return Ok(Ended::BrokenOff),
                None => return Err(format!("the events end at {at}, as if all were well").into()),
            }
        }
    }

    /// From `start` to the end from the engine itself, which names the object that is damaged.
    pub async fn fetch(&self, stream: &Stream, start: u64) -> Result<Result<(), EngineError>, Wrong> {
        let mut from = ReadFrom::At(Offset { position: start, incarnation: Incarnation::ANY });
        loop {
            let page = match self.engine.locate(&stream.name, from).await {
                Ok(page) => page,
                Err(EngineError::Rejected(rejection)) => return Err(Wrong::Less(rejection.to_string())),
                Err(error) => return Ok(Err(error)),
            };
            match self.engine.fetch(&stream.name, &page).await {
                Ok((bytes, _)) => stream.check(page.start, page.end, &bytes)?,
                Err(EngineError::Rejected(rejection)) => return Err(Wrong::Less(rejection.to_string())),
                Err(error) => return Ok(Err(error)),
            }
            if page.reaches_tail() {
                return stream.check_end(page.end).map(|_| Ok(()));
            }
            from = ReadFrom::At(Offset { position: page.end, incarnation: page.stream.incarnation });
        }
    }
}

/// A refusal must be the server's own fault, and say so in the form that problems have.
async fn refused(status: StatusCode, headers: &HeaderMap, body: Body) -> Result<Ended, Wrong> {
    let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let is_problem = headers.get("content-type").is_some_and(|kind| kind == "application/problem+json");
    let code = problem["code"].as_str().unwrap_or_default().to_owned();
    if status.is_server_error() && is_problem {
        return Ok(Ended::Refused(status.as_u16(), code));
    }
    Err(Wrong::Less(format!("{status} {code}")))
}
