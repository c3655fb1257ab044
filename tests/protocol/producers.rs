//! Idempotent producers (§5.2.1).

use crate::server::{Reply, Server};

async fn append(server: &Server, epoch: u64, seq: u64) -> Reply {
    server.post("s").text("x").producer("p", epoch, seq).send().await
}

#[tokio::test]
async fn new_data_is_200_and_a_duplicate_204() {
    let server = Server::start().await;
    server.text("s", "").await;
    for seq in 0..3 {
        let reply = append(&server, 0, seq).await;
        assert_eq!((reply.status.as_u16(), reply.header("producer-seq")), (200, &*seq.to_string()));
        assert_eq!(reply.header("producer-epoch"), "0");
    }
    let duplicate = append(&server, 0, 1).await;
    assert_eq!((duplicate.status.as_u16(), duplicate.header("producer-seq")), (204, "2"));
    assert_eq!(server.get("s").send().await.text(), "xxx");
}

#[tokio::test]
async fn a_gap_names_what_was_expected() {
    let server = Server::start().await;
    server.text("s", "").await;
    append(&server, 0, 0).await;
    let gap = append(&server, 0, 5).await;
    assert_eq!((gap.status.as_u16(), gap.code()), (409, "producer-seq-gap".to_owned()));
    assert_eq!((gap.header("producer-expected-seq"), gap.header("producer-received-seq")), ("1", "5"));
}

#[tokio::test]
async fn a_newer_epoch_fences_the_older() {
    let server = Server::start().await;
    server.text("s", "").await;
    append(&server, 0, 0).await;
    assert_eq!(append(&server, 1, 1).await.code(), "producer-epoch-must-start-at-zero");
    assert_eq!(append(&server, 1, 0).await.status, 200);
    let zombie = append(&server, 0, 1).await;
    assert_eq!((zombie.status.as_u16(), zombie.code()), (403, "producer-epoch-stale".to_owned()));
    assert_eq!(zombie.header("producer-epoch"), "1");
}

#[tokio::test]
async fn producer_headers_come_together_and_are_integers() {
    let server = Server::start().await;
    server.text("s", "").await;
    let calls = [
        server.post("s").text("x").with("producer-id", "p"),
        server.post("s").text("x").with("producer-epoch", "0").with("producer-seq", "0"),
        server.post("s").text("x").with("producer-id", "").with("producer-epoch", "0").with("producer-seq", "0"),
        server.post("s").text("x").with("producer-id", "p").with("producer-epoch", "-1").with("producer-seq", "0"),
        server.post("s").text("x").with("producer-id", "p").with("producer-epoch", "0").with("producer-seq", "1e3"),
    ];
    for call in calls {
        assert_eq!(call.send().await.status, 400);
    }
}

#[tokio::test]
async fn the_closing_append_may_be_repeated_by_its_producer() {
    let server = Server::start().await;
    server.text("s", "").await;
    let close = || server.post("s").text("end").producer("p", 0, 0).with("stream-closed", "true");
    let (first, retry) = (close().send().await, close().send().await);
    assert_eq!((first.status.as_u16(), first.header("stream-closed")), (200, "true"));
    assert_eq!((retry.status.as_u16(), retry.header("stream-closed")), (204, "true"));
    let other = append(&server, 0, 1).await;
    assert_eq!((other.status.as_u16(), other.header("stream-closed")), (409, "true"));
    assert_eq!(server.get("s").send().await.text(), "end");
}

#[tokio::test]
async fn a_producers_close_without_a_body_is_204() {
    let server = Server::start().await;
    server.text("s", "").await;
    let reply = server.post("s").producer("p", 0, 0).with("stream-closed", "true").send().await;
    assert_eq!((reply.status.as_u16(), reply.header("stream-closed")), (204, "true"));
    assert_eq!((reply.header("producer-epoch"), reply.header("producer-seq")), ("0", "0"));
}
