//! The list of streams, an extension: which streams there are, a page at a time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use headwater::clock::Clock;
use headwater::store::memory::MemoryStore;
use serde_json::Value;

use crate::server::{START, Server};

const LIST: &str = "__ds/streams";

/// A page: its items, and where the next one starts.
async fn page(server: &Server, query: &str) -> (Vec<Value>, Option<String>) {
    let reply = server.get(&format!("{LIST}?{query}")).send().await;
    assert_eq!((reply.status.as_u16(), reply.header("cache-control")), (200, "no-store"), "{}", reply.text());
    let page: Value = serde_json::from_slice(&reply.body).unwrap_or_else(|e| panic!("{}: {e}", reply.text()));
    let items = page["streams"].as_array().cloned().unwrap_or_default();
    (items, page["next"].as_str().map(str::to_owned))
}

fn name(item: &Value) -> String {
    item["name"].as_str().unwrap_or_default().to_owned()
}

/// All names, over as many pages as it takes.
async fn names(server: &Server, query: &str) -> Vec<String> {
    let (items, mut next) = page(server, query).await;
    let mut names = items.iter().map(name).collect::<Vec<_>>();
    let mut asked = BTreeSet::new();
    while let Some(after) = next {
        assert!(asked.insert(after.clone()), "it goes round in circles at {names:?}");
        let (items, more) = page(server, &format!("{query}&after={after}")).await;
        names.extend(items.iter().map(name));
        next = more;
    }
    names
}

async fn create(server: &Server, name: &str) {
    assert_eq!(server.put(name).text("").send().await.status, 201, "{name}");
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test]
async fn a_stream_is_listed_with_all_that_is_known_of_it() {
    let server = Server::in_process().await;
    assert_eq!(page(&server, "").await, (Vec::new(), None));
    server.put("plain").text("abc").with("stream-ttl", "60").send().await;
    let put = server.put("a/b%20%C3%A9").json("[1,2]").with("stream-expires-at", "2100-01-01T00:00:00Z");
    let tail = put.with("stream-closed", "true").send().await.header("stream-next-offset").to_owned();
    let (items, next) = page(&server, "").await;
    assert_eq!((items.len(), next), (2, None));
    let expected = serde_json::json!({
        "name": "a/b é",
        "path": "/v1/stream/a/b%20%C3%A9",
        "contentType": "application/json",
        "nextOffset": tail,
        "closed": true,
        "createdAt": "2030-01-01T00:00:00Z",
        "expiresAt": "2100-01-01T00:00:00Z",
    });
    assert_eq!(without_fraction(&items[0]), expected);
    let plain = &items[1];
    assert_eq!((&plain["name"], &plain["ttlSeconds"], &plain["closed"]), (&"plain".into(), &60.into(), &false.into()));
    let path = plain["path"].as_str().unwrap_or_default();
    assert_eq!(server.call("GET", path).send().await.text(), "abc");
}

/// The creation's time, as a clock shows it that started a moment ago.
fn without_fraction(item: &Value) -> Value {
    let mut item = item.clone();
    let created = item["createdAt"].as_str().unwrap_or_default().chars().take(19).collect::<String>();
    item["createdAt"] = format!("{created}Z").into();
    item
}

#[tokio::test]
async fn forks_say_where_they_come_from() {
    let server = Server::in_process().await;
    let middle = server.text("source", "abc").await;
    server.append("source", "def").await;
    let fork = server.put("fork").with("stream-forked-from", "/v1/stream/source").with("stream-fork-offset", &middle);
    let fork = fork.send().await;
    assert_eq!(fork.status, 201, "{}", fork.text());
    let (items, _) = page(&server, "").await;
    assert_eq!((&items[0]["forkedFrom"], &items[0]["forkOffset"]), (&"source".into(), &middle.clone().into()));
    assert_eq!(items[1].get("forkedFrom"), None);
    // It is kept for the fork from now on, and nobody's stream any more.
    server.delete("source").send().await;
    assert_eq!(names(&server, "").await, ["fork"]);
}

#[tokio::test(start_paused = true)]
async fn deleted_and_expired_streams_are_not_listed() {
    let server = Server::in_process().await;
    for name in ["deleted", "kept", "sealed-and-deleted"] {
        create(&server, name).await;
    }
    server.put("brief").text("x").with("stream-ttl", "8").send().await;
    server.delete("deleted").send().await;
    assert_eq!(names(&server, "").await, ["brief", "kept", "sealed-and-deleted"]);
    pass(300).await;
    server.delete("sealed-and-deleted").send().await;
    assert_eq!(names(&server, "").await, ["kept"]);
    pass(300).await;
    assert_eq!(names(&server, "").await, ["kept"]);
    create(&server, "deleted").await;
    assert_eq!(names(&server, "").await, ["deleted", "kept"]);
}

#[tokio::test(start_paused = true)]
async fn streams_are_listed_at_once_and_after_a_restart_wherever_they_are() {
    let clock = Clock::tokio(START);
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let server = async |number| Server::in_process_on(Arc::clone(&store) as _, clock.clone(), number).await;
    let first = server(1).await;
    let sealed = (0..20).map(|n| format!("sealed-{n:02}")).collect::<BTreeSet<_>>();
    for name in &sealed {
        create(&first, name).await;
    }
    pass(300).await;
    let unsealed = (0..20).map(|n| format!("log-{n:02}")).collect::<BTreeSet<_>>();
    for name in &unsealed {
        create(&first, name).await;
        assert!(names(&first, "prefix=log-").await.contains(name), "{name} was just created");
    }
    let all: Vec<String> = unsealed.iter().chain(&sealed).cloned().collect();
    assert_eq!(names(&first, "limit=7").await, all);
    let second = server(2).await;
    assert_eq!(names(&second, "limit=7").await, all, "as another server sees it");
    create(&second, "log-99").await;
    pass(2).await;
    assert_eq!(names(&first, "prefix=log-9").await, ["log-99"], "what another server created");
    drop(first);
    drop(second);
    pass(300).await;
    assert_eq!(names(&server(3).await, "limit=1000").await.len(), 41);
}

#[tokio::test(start_paused = true)]
async fn a_prefix_is_of_the_name_whatever_becomes_of_it_in_a_key() {
    let server = Server::in_process().await;
    let accents = "é".repeat(100);
    let streams =
        ["a", "a-b", "a.b", "a/b", "a/b/c", "a b", "é1", "e", &accents, &format!("{accents}x"), &"y".repeat(500)];
    for name in streams {
        create(
            &server,
            &percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC)
                .to_string()
                .replace("%2F", "/"),
        )
        .await;
    }
    for _ in ["in the log", "sealed"] {
        for prefix in ["", "a", "a/", "a/b", "é", &accents, &format!("{accents}x"), "yyyy", &"y".repeat(400), "z"] {
            let query = format!(
                "limit=3&prefix={}",
                percent_encoding::utf8_percent_encode(prefix, percent_encoding::NON_ALPHANUMERIC)
            );
            let found = names(&server, &query).await;
            let expected = streams.iter().filter(|name| name.starts_with(prefix)).map(|name| (*name).to_owned());
            assert_eq!(found.iter().cloned().collect::<BTreeSet<_>>(), expected.collect::<BTreeSet<_>>(), "{prefix}");
            assert_eq!(found.len(), found.iter().collect::<BTreeSet<_>>().len(), "{found:?}");
        }
        pass(300).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_there_all_the_time_is_listed_once_while_others_come_and_go() {
    let server = Server::in_process().await;
    // With lengths, and characters, around what separates a folder from what is in it.
    let lasting = (0..60).map(|n| format!("s{}{}", n % 10, [".", "-", "/x", "~", ""][n % 5].repeat(n / 10 + 1)));
    let lasting = lasting.collect::<BTreeSet<_>>();
    for name in &lasting {
        create(&server, name).await;
    }
    for round in 0..6 {
        let (mut seen, mut query) = (Vec::new(), format!("limit={}", round * 4 + 1));
        let base = query.clone();
        for step in 0..1000 {
            assert!(step < 999, "round {round} does not end");
            let (items, next) = page(&server, &query).await;
            seen.extend(items.iter().map(name));
            let Some(after) = next else { break };
            query = format!("{base}&after={after}");
            // What the page ended with may go, and others come before and after it.
            let last = items.last().map(name).filter(|last| last.contains("temporary"));
            if let Some(last) = last {
                server.delete(&last).send().await;
            }
            create(&server, &format!("s{}temporary-{round}-{step}", step % 10)).await;
            if step % 9 == 0 {
                pass(100).await;
            }
        }
        let kept = seen.iter().filter(|name| lasting.contains(*name)).cloned().collect::<Vec<_>>();
        assert_eq!(kept.len(), lasting.len(), "round {round}");
        assert_eq!(kept.into_iter().collect::<BTreeSet<_>>(), lasting, "round {round}");
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "round {round}: one came twice");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said() {
    let server = Server::in_process().await;
    for (query, said) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=%2B5", "limit"),
        ("limit=", "limit"),
        ("limit=ten", "limit"),
        ("after=%00", "after"),
        ("after=", "after"),
        ("after=a/b", "after"),
        ("after=AAAA", "after"),
        ("prefix=a&prefix=b", "prefix"),
        ("prefix=%ff", "UTF-8"),
    ] {
        let reply = server.get(&format!("{LIST}?{query}")).send().await;
        assert_eq!((reply.status.as_u16(), reply.code()), (400, "malformed-request".to_owned()), "{query}");
        assert!(reply.text().contains(said), "{query}: {}", reply.text());
    }
    assert_eq!(page(&server, "limit=1000&offset=5&offset=6&x").await, (Vec::new(), None));
}

#[tokio::test]
async fn only_the_list_itself_is_there() {
    let server = Server::in_process().await;
    for path in ["__ds/streams/", "__ds/streams/x", "__ds/stream", "__ds"] {
        assert_eq!(server.get(path).send().await.status, 501, "{path}");
    }
    assert_eq!(server.get("%5F_ds/streams").send().await.status, 200);
    for method in ["PUT", "POST", "DELETE", "HEAD"] {
        let reply = server.call(method, "/v1/stream/__ds/streams").send().await;
        assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, "GET, OPTIONS"), "{method}");
    }
}
