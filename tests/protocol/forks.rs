//! Forks (§4.2) and retention (an extension), as far as the official suite leaves them open.

use crate::server::Server;

type Headers<'a> = &'a [(&'static str, &'a str)];

const FROM: &str = "stream-forked-from";
const OFFSET: &str = "stream-fork-offset";
const SUB_OFFSET: &str = "stream-fork-sub-offset";

#[tokio::test]
async fn a_fork_goes_on_from_its_source() {
    let server = Server::start().await;
    let tail = server.text("source", "inherited;").await;
    let reply = server.put("a/fork").with(FROM, "/v1/stream/source").send().await;
    assert_eq!((reply.status.as_u16(), reply.header("content-type")), (201, "text/plain"));
    assert_eq!(reply.header("stream-next-offset"), tail, "the offset is the source's up to there");
    server.append("a/fork", "own;").await;
    server.append("source", "later;").await;
    assert_eq!(server.get("a/fork").send().await.text(), "inherited;own;");
    let from_there = server.get(&format!("a/fork?offset={tail}")).send().await;
    assert_eq!(from_there.text(), "own;");
    assert_ne!(from_there.header("stream-next-offset")[17..], tail[17..], "own bytes have own offsets");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_a_reason() {
    let server = Server::start().await;
    let tail = server.text("source", "five!").await;
    let elsewhere = format!("{}{}", &tail[..17], "0000000000000042");
    let past = format!("0000000000000009{}", &tail[16..]);
    let cases: [(Headers<'_>, u16, &str); 12] = [
        (&[(FROM, "source")], 400, "malformed-request"),
        (&[(FROM, "/v1/stream/")], 400, "malformed-request"),
        (&[(FROM, "/v1/stream/__ds/x")], 400, "malformed-request"),
        (&[(FROM, "/v1/stream/none")], 404, "source-not-found"),
        (&[(OFFSET, &tail)], 400, "malformed-request"),
        (&[(FROM, "/v1/stream/source"), (OFFSET, "now")], 400, "malformed-request"),
        (&[(FROM, "/v1/stream/source"), (OFFSET, "5")], 400, "malformed-request"),
        (&[(FROM, "/v1/stream/source"), (OFFSET, &elsewhere)], 400, "fork-offset"),
        (&[(FROM, "/v1/stream/source"), (OFFSET, &past)], 400, "offset-beyond-tail"),
        (&[(FROM, "/v1/stream/source"), (OFFSET, "-1"), (SUB_OFFSET, "6")], 400, "fork-offset"),
        (&[(FROM, "/v1/stream/source"), (SUB_OFFSET, "-1")], 400, "malformed-request"),
        (&[(FROM, "/v1/stream/source"), ("content-type", "text/html")], 409, "content-type-mismatch"),
    ];
    for (headers, status, code) in cases {
        let call = headers.iter().fold(server.put("fork"), |call, (name, value)| call.with(name, value));
        let reply = call.send().await;
        assert_eq!((reply.status.as_u16(), reply.code()), (status, code.to_owned()), "{headers:?}: {}", reply.text());
    }
    assert_eq!(server.head("fork").send().await.status, 404, "something came to be");
    assert_eq!(server.delete("source").send().await.status, 204);
    assert_eq!(server.head("source").send().await.status, 404, "a reference was left");
}

#[tokio::test]
async fn a_deleted_source_answers_410_for_as_long_as_it_has_forks() {
    let server = Server::start().await;
    let tail = server.text("source", "kept;").await;
    server.put("fork").with(FROM, "/v1/stream/source").send().await;
    assert_eq!(server.delete("source").send().await.status, 204);
    for reply in [
        server.get("source").send().await,
        server.get(&format!("source?offset={tail}&live=long-poll")).send().await,
        server.get("source?offset=-1&live=sse").send().await,
        server.post("source").text("x").send().await,
        server.delete("source").send().await,
    ] {
        assert_eq!((reply.status.as_u16(), reply.code()), (410, "stream-deleted".to_owned()));
        assert_eq!(reply.header("cache-control"), "no-store");
    }
    assert_eq!(server.head("source").send().await.status, 410);
    let again = server.put("source").text("x").send().await;
    assert_eq!((again.status.as_u16(), again.code()), (409, "stream-exists".to_owned()));
    assert_eq!(server.get("fork").send().await.text(), "kept;");
}

#[tokio::test]
async fn caches_do_not_keep_what_another_fork_under_the_same_path_may_not_have() {
    let server = Server::start().await;
    let start = server.text("source", "").await;
    server.post("source").text("x".repeat(1024)).send().await;
    server.append("source", "y").await;
    server.put("fork").with(FROM, "/v1/stream/source").send().await;
    server.post("fork").text("z".repeat(4096)).send().await;
    let control = async |query: String| server.get(&query).send().await.header("cache-control").to_owned();
    let shared = control(format!("source?offset={start}")).await;
    assert!(shared.starts_with("public, max-age=60"), "{shared}");
    let inherited = control(format!("fork?offset={start}")).await;
    assert!(inherited.starts_with("public, max-age=0, s-maxage=1"), "{inherited}");
}

#[tokio::test]
async fn a_live_read_of_a_fork_hears_of_its_own_appends_only() {
    let server = Server::start().await;
    let tail = server.text("source", "inherited;").await;
    server.put("fork").with(FROM, "/v1/stream/source").send().await;
    let query = format!("fork?offset={tail}&live=long-poll");
    let (reply, ()) = tokio::join!(server.get(&query).send(), async {
        server.append("source", "not this;").await;
        server.append("fork", "this;").await;
    });
    assert_eq!((reply.status.as_u16(), reply.text()), (200, "this;".to_owned()));
}

#[tokio::test]
async fn a_json_fork_may_branch_off_within_a_batch() {
    let server = Server::start().await;
    server.put("source").with("content-type", "application/json").send().await;
    let batch = server.post("source").with("content-type", "application/json").body(r#"[{"a":1},{"b":2},{"c":3}]"#);
    assert_eq!(batch.send().await.status, 204);
    let reply =
        server.put("fork").with(FROM, "/v1/stream/source").with(OFFSET, "-1").with(SUB_OFFSET, "2").send().await;
    assert_eq!(reply.status, 201);
    assert_eq!(server.get("fork").send().await.text(), r#"[{"a":1},{"b":2}]"#);
}

#[tokio::test]
async fn retention_is_told_and_may_be_changed() {
    let server = Server::start().await;
    let put = async |name: &'static str, value: &'static str| {
        server.put("s").with("content-type", "text/plain").with(name, value).send().await
    };
    let (bytes, age) = ("stream-retention-bytes", "stream-retention-age");
    assert_eq!(put(bytes, "1000").await.status, 201);
    assert_eq!(server.head("s").send().await.header(bytes), "1000");
    assert_eq!(put(age, "3600").await.status, 200);
    let head = server.head("s").send().await;
    assert_eq!((head.has(bytes), head.header(age), head.has("stream-earliest-offset")), (false, "3600", false));
    for wrong in ["0", "-1", "1MiB"] {
        let reply = put(bytes, wrong).await;
        assert_eq!((reply.status.as_u16(), reply.code()), (400, "malformed-request".to_owned()));
    }
}
