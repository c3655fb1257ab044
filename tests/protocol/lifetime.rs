//! TTL and expiry (§5.1), on a clock that only the test moves.

use std::time::Duration;

use crate::server::Server;

/// Paused time passes in the steps of everyone's timers, so that what the server does in the background gets its turn.
async fn pass(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

#[tokio::test]
async fn lifetimes_are_told_as_they_were_asked_for() {
    let server = Server::start().await;
    let ttl = server.put("ttl").with("stream-ttl", "3600").send().await;
    assert_eq!((ttl.status.as_u16(), ttl.header("stream-ttl")), (201, "3600"));
    assert_eq!(server.head("ttl").send().await.header("stream-ttl"), "3600");
    server.put("until").with("stream-expires-at", "2100-01-01T02:00:00+02:00").send().await;
    assert_eq!(server.head("until").send().await.header("stream-expires-at"), "2100-01-01T00:00:00Z");
    for (name, value) in [("stream-ttl", "+1"), ("stream-ttl", "01"), ("stream-expires-at", "soon")] {
        assert_eq!(server.put("bad").with(name, value).send().await.status, 400, "{value}");
    }
    let both = server.put("bad").with("stream-ttl", "1").with("stream-expires-at", "2100-01-01T00:00:00Z");
    assert_eq!(both.send().await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn reads_and_writes_renew_a_ttl_and_head_does_not() {
    let server = Server::in_process().await;
    server.put("s").text("data").with("stream-ttl", "8").send().await;
    for call in [server.get("s?offset=now"), server.post("s").text("x"), server.post("s").with("stream-closed", "true")]
    {
        pass(7000).await;
        assert!(call.send().await.status.is_success());
    }
    for _ in 0..2 {
        pass(4000).await;
        assert_eq!(server.head("s").send().await.status, 200);
    }
    // TTL and the slack within which uses are not recorded.
    pass(1500).await;
    assert_eq!(server.head("s").send().await.status, 404);
    assert_eq!(server.get("s").send().await.status, 404);
    assert_eq!(server.put("s").text("new").send().await.status, 201);
}

#[tokio::test(start_paused = true)]
async fn a_fixed_end_is_not_renewed_and_caches_know_it() {
    let server = Server::in_process().await;
    let start = server.put("s").text("").with("stream-expires-at", "2030-01-01T00:01:40Z").send().await;
    let start = start.header("stream-next-offset").to_owned();
    server.post("s").text("x".repeat(1024)).send().await;
    server.post("s").text("x").send().await;
    let control = || async { server.get(&format!("s?offset={start}")).send().await.header("cache-control").to_owned() };
    assert!(control().await.starts_with("public, max-age=60"));
    pass(95_000).await;
    let late = control().await;
    let age: u64 =
        late.trim_start_matches("public, max-age=").split(',').next().and_then(|n| n.parse().ok()).unwrap_or(99);
    assert!(age <= 5, "{late}");
    pass(5_000).await;
    assert_eq!(server.get("s").send().await.status, 404);
}
