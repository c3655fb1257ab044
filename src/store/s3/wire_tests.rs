//! What becomes of answers that a real store gives too rarely to be tested with: a server on the loopback interface
//! that says exactly what the script says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::store::FailureKind;

const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT";
const AT: StoreTime = StoreTime(784_111_777_000);

/// Answers its requests with `script` in turn, closing the connection after each, and keeps the requests' heads.
/// Connections that come when the script is over are closed unanswered.
struct Server {
    endpoint: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(script: Vec<String>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        tokio::spawn(async move {
            let mut script = script.into_iter();
            while let Ok((mut connection, _)) = listener.accept().await {
                let head = read_request(&mut connection).await;
                seen.lock().expect("not poisoned").push(head);
                match script.next().as_deref() {
                    Some("hang") => {
                        tokio::spawn(async move {
                            // Until the client gives up.
                            let _ = connection.read(&mut [0]).await;
                        });
                    }
                    Some(answer) => connection.write_all(answer.as_bytes()).await.expect("the client listens"),
                    None => {}
                }
            }
        });
        Server { endpoint, requests }
    }

    async fn store(&self) -> S3Store {
        store_at(&self.endpoint).await
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("not poisoned").clone()
    }
}

/// The head; the body is read and dropped.
async fn read_request(connection: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match connection.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    let _ = connection.read_exact(&mut body).await;
    head
}

async fn store_at(endpoint: &str) -> S3Store {
    let options = S3Options {
        bucket: "bucket".to_owned(),
        prefix: "some/prefix".to_owned(),
        endpoint: Some(endpoint.to_owned()),
        region: Some("eu-test-1".to_owned()),
        path_style: true,
        keys: Some(AccessKeys {
            access_key: "AK".to_owned(),
            secret_key: "SK".to_owned(),
            session_token: Some("token".to_owned()),
        }),
        attempt_timeout: Duration::from_secs(2),
        attempts: 3,
        ..S3Options::default()
    };
    S3Store::open(options, Ids::seeded(1)).await.unwrap_or_else(|error| panic!("{error}"))
}

fn answer(status: &str, headers: &[&str], body: &str) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!("HTTP/1.1 {status}\r\n{DATE}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn error(status: &str, code: &str) -> String {
    answer(
        status,
        &[],
        &format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>so it is</Message></Error>"),
    )
}

fn absent() -> Condition {
    Condition::Absent
}

fn unchanged() -> Condition {
    Condition::Unchanged(Version("\"v1\"".to_owned()))
}

/// The outcome of a PUT that is answered so, and how many requests it took.
async fn put(script: Vec<String>, condition: Condition) -> (StoreResult<Put>, usize) {
    let server = Server::start(script).await;
    let result = server.store().await.put("key", Bytes::from_static(b"body"), condition).await;
    (result, server.requests().len())
}

fn verdict(result: &Result<impl std::fmt::Debug, StoreError>) -> (&'static str, FailureKind) {
    match result {
        Err(StoreError::NotApplied(failure)) => ("not applied", failure.kind),
        Err(StoreError::Unknown(failure)) => ("unknown", failure.kind),
        Ok(reply) => panic!("it succeeded: {reply:?}"),
    }
}

#[tokio::test]
async fn a_412_is_a_conflict_with_the_time_of_the_answer() {
    for condition in [absent(), unchanged()] {
        let (result, requests) = put(vec![error("412 Precondition Failed", "PreconditionFailed")], condition).await;
        assert_eq!(result.expect("an answer"), Reply { value: Put::Conflict, at: AT });
        assert_eq!(requests, 1);
    }
}

#[tokio::test]
async fn a_404_on_if_match_is_a_conflict_unless_the_bucket_is_missing() {
    let (result, _) = put(vec![error("404 Not Found", "NoSuchKey")], unchanged()).await;
    assert_eq!(result.expect("an answer"), Reply { value: Put::Conflict, at: AT });
    let (result, _) = put(vec![error("404 Not Found", "NoSuchBucket")], unchanged()).await;
    assert_eq!(verdict(&result), ("not applied", FailureKind::Denied));
}

#[tokio::test]
async fn a_409_is_never_lost_and_never_sent_again_from_here() {
    for condition in [absent(), unchanged()] {
        let (result, requests) = put(vec![error("409 Conflict", "ConditionalRequestConflict")], condition).await;
        assert_eq!(verdict(&result), ("unknown", FailureKind::Unavailable));
        assert_eq!(requests, 1);
    }
}

#[tokio::test]
async fn a_server_error_leaves_a_put_unknown_and_is_not_sent_again() {
    for (status, code) in [
        ("500 Internal Server Error", "InternalError"),
        ("502 Bad Gateway", ""),
        ("504 Gateway Timeout", ""),
        ("408 Request Timeout", "RequestTimeout"),
    ] {
        let (result, requests) = put(vec![error(status, code)], absent()).await;
        assert_eq!((verdict(&result), requests), (("unknown", FailureKind::Unavailable), 1), "{status}");
    }
    for code in ["ServiceUnavailable", "SlowDownWrite"] {
        let (result, requests) = put(vec![error("503 Service Unavailable", code)], absent()).await;
        assert_eq!((verdict(&result), requests), (("unknown", FailureKind::Throttled), 1), "{code}");
    }
}

#[tokio::test]
async fn a_put_that_was_throttled_is_tried_again_a_few_times() {
    let slow_down = || error("503 Slow Down", "SlowDown");
    let written = answer("200 OK", &["ETag: \"v2\""], "");
    let (result, requests) = put(vec![slow_down(), error("429 Too Many Requests", "TooMany"), written], absent()).await;
    assert_eq!(result.expect("an answer").value, Put::Written(Version("\"v2\"".to_owned())));
    assert_eq!(requests, 3);
    let (result, requests) = put(vec![slow_down(), slow_down(), slow_down(), slow_down()], absent()).await;
    assert_eq!((verdict(&result), requests), (("not applied", FailureKind::Throttled), 3));
}

#[tokio::test]
async fn a_retry_after_is_honoured_or_handed_up() {
    let script = vec![answer("429 Too Many Requests", &["Retry-After: 3600"], "")];
    let (result, requests) = put(script, absent()).await;
    assert_eq!(verdict(&result), ("not applied", FailureKind::Throttled));
    let error = result.expect_err("throttled");
    assert_eq!((error.failure().retry_after, requests), (Some(Duration::from_secs(3600)), 1));
}

#[tokio::test]
async fn what_is_forbidden_is_not_tried_again_and_says_why() {
    for (status, code, advice) in [
        ("403 Forbidden", "AccessDenied", "so it is"),
        ("403 Forbidden", "RequestTimeTooSkewed", "clock"),
        ("301 Moved Permanently", "PermanentRedirect", "region"),
        ("400 Bad Request", "AuthorizationHeaderMalformed", "region"),
        ("404 Not Found", "NoSuchBucket", "create the bucket"),
    ] {
        let server = Server::start(vec![error(status, code); 2]).await;
        let store = server.store().await;
        let result = store.put("key", Bytes::new(), absent()).await;
        assert_eq!(verdict(&result), ("not applied", FailureKind::Denied), "{code}");
        let result = store.get("key").await;
        assert_eq!(verdict(&result), ("not applied", FailureKind::Denied), "{code}");
        let message = result.expect_err("denied").to_string();
        assert!(message.contains(code) && message.contains(advice), "{message}");
        assert_eq!(server.requests().len(), 2);
    }
}

#[tokio::test]
async fn what_the_store_cannot_do_is_not_tried_again() {
    for (status, code) in [("501 Not Implemented", "NotImplemented"), ("400 Bad Request", "InvalidArgument")] {
        let (result, requests) = put(vec![error(status, code)], absent()).await;
        assert_eq!((verdict(&result), requests), (("not applied", FailureKind::Broken), 1), "{code}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_after_sending_leaves_a_put_unknown() {
    let cut_head = "HTTP/1.1 200 OK\r\nETag: \"v2\"\r\n".to_owned();
    let cut_body = "HTTP/1.1 200 OK\r\nETag: \"v2\"\r\nContent-Length: 10\r\n\r\nabc".to_owned();
    let no_version = answer("200 OK", &[], "");
    for answer in [String::new(), cut_head, cut_body, no_version, "hang".to_owned()] {
        let (result, requests) = put(vec![answer.clone()], absent()).await;
        assert_eq!((verdict(&result), requests), (("unknown", FailureKind::Unavailable), 1), "{answer}");
    }
}

#[tokio::test]
async fn a_refused_connection_is_known_to_have_changed_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let store = store_at(&endpoint).await;
    let result = store.put("key", Bytes::new(), absent()).await;
    assert_eq!(verdict(&result), ("not applied", FailureKind::Unavailable));
    let result = store.delete("key").await;
    assert_eq!(verdict(&result), ("not applied", FailureKind::Unavailable));
    assert!(result.expect_err("refused").to_string().to_lowercase().contains("refused"));
}

#[tokio::test]
async fn reads_are_tried_again_until_they_are_answered() {
    let found = || answer("200 OK", &["ETag: \"v1\"", "Last-Modified: Sun, 06 Nov 1994 08:49:30 GMT"], "0123456789");
    let cut = found().replace("0123456789", "012");
    for trouble in [error("500 Internal Server Error", "InternalError"), cut, String::new(), "hang".to_owned()] {
        let server = Server::start(vec![trouble.clone(), found()]).await;
        let store = server.store().await;
        let reply = store.get("key").await.unwrap_or_else(|error| panic!("{trouble}: {error}"));
        let object = reply.value.expect("an object");
        assert_eq!((&object.body[..], reply.at, store.last_seen()), (&b"0123456789"[..], AT, AT));
        assert_eq!((object.version, object.modified), (Version("\"v1\"".to_owned()), StoreTime(AT.0 - 7000)));
        assert_eq!(server.requests().len(), 2, "{trouble}");
    }
}

#[tokio::test]
async fn a_cut_body_is_never_a_short_object() {
    let whole = answer("200 OK", &["ETag: \"v1\""], "0123456789");
    let cut = whole.replace("0123456789", "012");
    let unbounded = whole.replace("Content-Length: 10\r\n", "");
    for script in [cut, unbounded] {
        let result = Server::start(vec![script.clone(); 3]).await.store().await.get("key").await;
        assert!(matches!(result, Err(StoreError::NotApplied(_))), "{script}: {result:?}");
    }
}

#[tokio::test]
async fn only_no_such_key_means_that_there_is_no_object() {
    let get = async |script: String| Server::start(vec![script]).await.store().await.get("key").await;
    let reply = get(error("404 Not Found", "NoSuchKey")).await.expect("an answer");
    assert!(reply.value.is_none());
    assert_eq!(reply.at, AT);
    let result = get(error("404 Not Found", "NoSuchBucket")).await;
    assert_eq!(verdict(&result), ("not applied", FailureKind::Denied));
    let result = get(answer("404 Not Found", &[], "<html>nginx</html>")).await;
    assert_eq!(verdict(&result), ("not applied", FailureKind::Broken));
}

#[tokio::test]
async fn ranges_are_what_was_asked_for() {
    let get = async |script: String| Server::start(vec![script; 3]).await.store().await.get_range("key", 2..5).await;
    let tag = "ETag: \"v1\"";
    let part = answer("206 Partial Content", &[tag, "Content-Range: bytes 2-4/10"], "234");
    assert_eq!(get(part).await.expect("an answer").value.as_deref(), Some(&b"234"[..]));
    let whole = answer("200 OK", &[tag], "0123456789");
    assert_eq!(get(whole).await.expect("an answer").value.as_deref(), Some(&b"234"[..]));
    let past = error("416 Range Not Satisfiable", "InvalidRange");
    assert_eq!(get(past).await.expect("an answer").value.as_deref(), Some(&b""[..]));
    let other = answer("206 Partial Content", &[tag, "Content-Range: bytes 0-2/10"], "012");
    assert!(get(other).await.is_err());
}

#[tokio::test]
async fn deletes_are_tried_again_and_a_missing_object_is_deleted() {
    let script =
        vec![error("500 Internal Server Error", "InternalError"), String::new(), answer("204 No Content", &[], "")];
    let server = Server::start(script).await;
    assert_eq!(server.store().await.delete("key").await.expect("an answer"), Reply { value: (), at: AT });
    assert_eq!(server.requests().len(), 3);
    let server = Server::start(vec![error("404 Not Found", "NoSuchKey")]).await;
    assert!(server.store().await.delete("key").await.is_ok());
    let server = Server::start(vec![error("500 Internal Server Error", "InternalError"); 3]).await;
    let result = server.store().await.delete("key").await;
    assert_eq!(verdict(&result), ("unknown", FailureKind::Unavailable));
}

#[tokio::test]
async fn requests_say_what_they_mean() {
    let written = || answer("200 OK", &["ETag: \"v2\""], "");
    let server = Server::start(vec![written(), written(), answer("200 OK", &["ETag: \"v1\""], "x")]).await;
    let store = server.store().await;
    for condition in [absent(), unchanged()] {
        assert!(store.put("a/b%2Fc", Bytes::from_static(b"body"), condition).await.is_ok());
    }
    assert!(store.get("key").await.is_ok());
    let requests = server.requests();
    assert!(requests[0].starts_with("put /bucket/some/prefix/a/b%252fc"), "{}", requests[0]);
    assert!(requests[0].contains("\r\nif-none-match: *\r\n") && requests[1].contains("\r\nif-match: \"v1\"\r\n"));
    for request in &requests {
        assert!(request.contains("\r\nx-amz-security-token: token\r\n") && request.contains("/eu-test-1/s3/"));
        assert!(!request.contains("checksum") && !request.contains("expect: 100"), "{request}");
    }
}
