//! Which paths name a stream (§12.2), without a client that would tidy them up.

use crate::server::Server;

#[tokio::test]
async fn paths_with_slashes_spaces_and_any_letters_are_names() {
    let server = Server::in_process().await;
    for name in ["a", "a/b/c", "a%20b", "%C3%A9", "...", "a;b=c", "a:b@c"] {
        assert_eq!(server.put(name).text(name.to_owned()).send().await.status, 201, "{name}");
    }
    assert_eq!(server.get("a/b/c").send().await.text(), "a/b/c");
    assert_eq!(server.get("%c3%a9").send().await.text(), "%C3%A9", "one name however it is encoded");
}

#[tokio::test]
async fn ambiguous_paths_are_refused() {
    let server = Server::in_process().await;
    let long = "x".repeat(600);
    for name in ["", "a/", "a//b", "./a", "a/../b", "%2e%2e/a", "a%2Fb", "a%00b", "%ff", "%zz", &long] {
        let reply = server.put(name).send().await;
        assert_eq!((reply.status.as_u16(), reply.code()), (400, "malformed-request".to_owned()), "{name}");
    }
}

#[tokio::test]
async fn what_is_reserved_and_what_is_not_there_is_told_apart() {
    let server = Server::in_process().await;
    for name in ["__ds/subscriptions/x", "%5F_ds/jwks.json", "__ds"] {
        let reply = server.put(name).send().await;
        assert_eq!((reply.status.as_u16(), reply.code()), (501, "subscriptions-not-supported".to_owned()), "{name}");
    }
    assert_eq!(server.call("GET", "/v2/stream/a").send().await.code(), "no-such-route");
    let patch = server.call("PATCH", "/v1/stream/a").send().await;
    assert_eq!((patch.status.as_u16(), patch.code()), (405, "method-not-allowed".to_owned()));
    assert!(patch.header("allow").contains("POST"));
}
