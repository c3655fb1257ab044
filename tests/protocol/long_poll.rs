//! Long-polls (§5.7). Time is paused: a hold lasts no time at all once everyone waits.

use crate::server::Server;

#[tokio::test(start_paused = true)]
async fn data_that_is_there_comes_at_once_with_a_cursor() {
    let server = Server::in_process().await;
    server.text("s", "data").await;
    let reply = server.get("s?offset=-1&live=long-poll").send().await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, "data".to_owned()));
    assert_eq!(reply.header("stream-up-to-date"), "true");
    let cursor: u64 = reply.header("stream-cursor").parse().unwrap_or(0);
    let again = server.get(&format!("s?offset=-1&live=long-poll&cursor={cursor}")).send().await;
    assert!(again.header("stream-cursor").parse().is_ok_and(|next: u64| next > cursor));
}

#[tokio::test]
async fn a_waiting_reader_gets_what_is_appended() {
    let server = Server::start().await;
    let tail = server.text("s", "old").await;
    for from in ["now".to_owned(), tail] {
        let query = format!("s?offset={from}&live=long-poll");
        let waiting = tokio::spawn(server.get(&query).send());
        // Either order is right: the append comes before the look, or wakes it. From `now` it may come before.
        while !waiting.is_finished() {
            server.append("s", "new").await;
            tokio::task::yield_now().await;
        }
        let reply = waiting.await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(reply.status, 200);
        assert!(reply.text().starts_with("new") && !reply.text().contains("old"), "{}", reply.text());
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_without_data_ends_with_the_offset_it_began_with() {
    let server = Server::in_process().await;
    let tail = server.text("s", "data").await;
    for from in ["now", &tail] {
        let reply = server.get(&format!("s?offset={from}&live=long-poll")).send().await;
        assert_eq!((reply.status.as_u16(), reply.text()), (204, String::new()));
        assert_eq!((reply.header("stream-next-offset"), reply.header("stream-up-to-date")), (&*tail, "true"));
        assert!(reply.header("stream-cursor").parse::<u64>().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn all_who_wait_for_a_stream_are_told_the_same() {
    let server = Server::in_process().await;
    let tail = server.text("s", "data").await;
    let query = format!("s?offset={tail}&live=long-poll");
    let first = tokio::spawn(server.get(&query).send());
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let second = server.get(&query).send().await;
    let first = first.await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(first, second);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_closed_stream_is_not_waited_for() {
    let server = Server::in_process().await;
    server.text("s", "data").await;
    let tail = server.post("s").with("stream-closed", "true").send().await.header("stream-next-offset").to_owned();
    let started = tokio::time::Instant::now();
    let reply = server.get(&format!("s?offset={tail}&live=long-poll")).send().await;
    assert_eq!((reply.status.as_u16(), reply.header("stream-closed")), (204, "true"));
    assert_eq!((reply.header("stream-up-to-date"), reply.header("stream-next-offset")), ("true", &*tail));
    assert!(started.elapsed() < std::time::Duration::from_secs(1), "on a clock that only waiting moves");
}

#[tokio::test]
async fn a_close_and_a_delete_wake_who_waits() {
    let server = Server::start().await;
    let tail = server.text("closed", "data").await;
    let waiting = tokio::spawn(server.get(&format!("closed?offset={tail}&live=long-poll")).send());
    tokio::task::yield_now().await;
    server.post("closed").with("stream-closed", "true").send().await;
    let reply = waiting.await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((reply.status.as_u16(), reply.header("stream-closed")), (204, "true"));

    let tail = server.text("deleted", "data").await;
    let waiting = tokio::spawn(server.get(&format!("deleted?offset={tail}&live=long-poll")).send());
    tokio::task::yield_now().await;
    server.delete("deleted").send().await;
    assert_eq!(waiting.await.unwrap_or_else(|e| panic!("{e}")).status, 404);
}

/// The race of a deadline with appends: no answer may move the client past bytes that it was not given.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_skips_bytes_while_appends_race_the_hold() {
    const APPENDS: usize = 200;
    let hold = std::time::Duration::from_millis(1);
    let settings = headwater::settings::HttpSettings { long_poll_hold: hold, ..Default::default() };
    let server = std::sync::Arc::new(Server::start_with(settings).await.0);
    let start = server.text("s", "").await;
    let readers: Vec<_> = (0..8).map(|_| tokio::spawn(read_to_the_end(server.clone(), start.clone()))).collect();
    for _ in 0..APPENDS {
        server.append("s", "0123456789").await;
    }
    server.post("s").with("stream-closed", "true").send().await;
    for reader in readers {
        let read = reader.await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(read, "0123456789".repeat(APPENDS));
    }
}

async fn read_to_the_end(server: std::sync::Arc<Server>, mut offset: String) -> String {
    let mut read = String::new();
    loop {
        let reply = server.get(&format!("s?offset={offset}&live=long-poll")).send().await;
        read += &reply.text();
        offset = reply.header("stream-next-offset").to_owned();
        assert!(offset.starts_with(&format!("{:016}_", read.len())), "{offset} after {} bytes", read.len());
        if reply.has("stream-closed") {
            return read;
        }
    }
}
