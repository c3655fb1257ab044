//! Requests: path, query and headers, as an HTTP library hands them over.

use bytes::Bytes;
use headwater::http::request::{self, AppendHeaders, CreateHeaders, Live, Read, Target as Addressed};
use headwater::protocol::{ContentType, ReadFrom};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::corpus::replay;
use crate::harness::{Target, fuzz};
use crate::mutate::{mutated, noise};

/// A request's head: its URI, then its headers, a line each.
struct Heads;

#[derive(Debug, PartialEq)]
struct Head {
    addressed: Option<Addressed>,
    read: Option<Read>,
    create: Option<CreateHeaders>,
    append: Option<AppendHeaders>,
    content_type: Option<ContentType>,
}

fn lines(input: &Bytes) -> Option<(Uri, HeaderMap)> {
    let mut lines = input.split(|byte| *byte == b'\n');
    let uri = Uri::try_from(lines.next()?).ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        headers.append(name, HeaderValue::from_bytes(&line[colon + 1..]).ok()?);
    }
    Some((uri, headers))
}

impl Target for Heads {
    const NAME: &'static str = "request";
    const FIXED: u64 = 4 << 10;
    const EACH: u64 = 40;
    type Value = Head;

    fn parse(input: &Bytes) -> Option<Head> {
        let (uri, headers) = lines(input)?;
        let _ = request::wants_fork(&headers);
        let head = Head {
            addressed: request::target(&uri).ok(),
            read: Read::parse(&uri, &headers).ok(),
            create: CreateHeaders::parse(&headers).ok(),
            append: AppendHeaders::parse(&headers).ok(),
            content_type: request::content_type(&headers).ok().flatten(),
        };
        (head.addressed.is_some() && head.read.is_some() && head.create.is_some() && head.append.is_some())
            .then_some(head)
    }

    /// Written in the plainest way, it means the same.
    fn check(_: &Bytes, head: &Head) -> Result<(), String> {
        let (Some(read), Some(create), Some(append)) = (&head.read, &head.create, &head.append) else {
            return Err("it was refused".to_owned());
        };
        if let Some(Addressed::Stream(name)) = &head.addressed {
            let path: Vec<String> =
                name.as_str().split('/').map(|part| utf8_percent_encode(part, NON_ALPHANUMERIC).to_string()).collect();
            let uri =
                Uri::try_from(format!("/v1/stream/{}?{}", path.join("/"), query(read))).map_err(|e| e.to_string())?;
            let mut headers = HeaderMap::new();
            if let Some(tags) = &read.if_none_match {
                headers.insert("if-none-match", HeaderValue::from_str(tags).map_err(|e| e.to_string())?);
            }
            let again = (request::target(&uri).ok(), Read::parse(&uri, &headers).ok());
            if (&again.0, again.1.as_ref()) != (&head.addressed, Some(read)) {
                return Err(format!("{uri} means {again:?}"));
            }
        }
        if create.closed != append.close || head.content_type.clone().unwrap_or_default() != create.content_type {
            return Err("PUT and POST differ".to_owned());
        }
        let longest = append.seq.as_ref().map_or(0, |seq| seq.len());
        if longest > 256 { Err(format!("a Stream-Seq of {longest} bytes")) } else { Ok(()) }
    }
}

fn query(read: &Read) -> String {
    let mut query = match (read.from, read.anchor) {
        (_, request::Anchor::Absent) => String::new(),
        (ReadFrom::Start, _) => "offset=-1".to_owned(),
        (ReadFrom::Now, _) => "offset=now".to_owned(),
        (ReadFrom::At(offset), _) => format!("offset={offset}"),
    };
    match read.live {
        Live::No => {}
        Live::LongPoll => query.push_str("&live=long-poll"),
        Live::Sse => query.push_str("&live=sse"),
    }
    if let Some(cursor) = read.cursor {
        query.push_str(&format!("&cursor={cursor}"));
    }
    query
}

fn heads() -> impl Strategy<Value = String> + Clone {
    let path = "[a-z0-9._~-]{1,6}(/[a-z0-9%_]{1,6}){0,2}|a%20b|%C3%A9|__ds/x";
    let parameter = prop_oneof![
        (0u64..1 << 50, 0u64..1 << 50).prop_map(|(a, b)| format!("offset={a:016}_{b:016}")),
        select(&["offset=-1", "offset=now", "live=sse", "live=long-poll", "cursor=17", "%6Fffset=now", "x=1+1"][..])
            .prop_map(str::to_owned),
    ];
    let name = select(
        &[
            "content-type",
            "stream-ttl",
            "stream-expires-at",
            "stream-closed",
            "stream-seq",
            "producer-id",
            "producer-epoch",
            "producer-seq",
            "if-none-match",
            "stream-forked-from",
            "accept",
        ][..],
    );
    let value = prop_oneof![
        select(&["text/plain", "application/json", "true", "0", "60", "\"1:2:3\"", "2030-01-01T00:00:00Z"][..])
            .prop_map(str::to_owned),
        (0u64..1 << 54).prop_map(|number| number.to_string()),
        "[ -~é]{0,12}",
    ];
    let headers = vec((name, value).prop_map(|(name, value)| format!("\n{name}:{value}")), 0..5);
    let producer = prop_oneof![3 => Just(""), 1 => Just("\nproducer-id:p\nproducer-epoch:1\nproducer-seq:2")];
    (path, vec(parameter, 0..4), headers, producer).prop_map(|(path, parameters, headers, producer)| {
        format!("/v1/stream/{path}?{}{}{producer}", parameters.join("&"), headers.concat())
    })
}

#[test]
fn request_heads() {
    assert!(replay::<Heads>() > 0);
    let valid = heads().prop_map(Bytes::from);
    fuzz::<Heads>(prop_oneof![1 => noise(), 3 => valid.clone(), 6 => mutated(valid)]);
}
