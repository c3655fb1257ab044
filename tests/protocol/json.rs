//! JSON mode (§9.1).

use crate::server::Server;

#[tokio::test]
async fn messages_come_back_as_one_array() {
    let server = Server::start().await;
    server.put("s").json("[]").send().await;
    assert_eq!(server.get("s").send().await.text(), "[]");
    for body in ["{\"a\":1}", "[1, \"x\"]", "[[2,3]]", "null"] {
        assert_eq!(server.post("s").json(body).send().await.status, 204);
    }
    let reply = server.get("s").send().await;
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(reply.text(), "[{\"a\":1},1,\"x\",[2,3],null]");
    assert_eq!(server.get("s?offset=now").send().await.text(), "[]");
}

#[tokio::test]
async fn what_is_not_json_appends_nothing() {
    let server = Server::start().await;
    server.put("s").with("content-type", "application/json; charset=utf-8").send().await;
    for body in ["{", "[1,]", "[]", " [ ] ", "nul", " "] {
        let reply = server.post("s").json(body).send().await;
        assert_eq!((reply.status.as_u16(), reply.code()), (400, "malformed-request".to_owned()), "{body}");
    }
    assert_eq!(server.put("bad").json("{").send().await.status, 400);
    assert_eq!(server.get("bad").send().await.status, 404);
    assert_eq!(server.get("s").send().await.text(), "[]");
}

#[tokio::test]
async fn pages_hold_whole_messages() {
    let server = Server::start().await;
    let messages: Vec<String> = (0..200).map(|n| format!("{{\"number\":{n}}}")).collect();
    server.put("s").json(format!("[{}]", messages.join(","))).send().await;
    let (mut offset, mut numbers, mut pages) = ("-1".to_owned(), Vec::new(), 0);
    loop {
        let reply = server.get(&format!("s?offset={offset}")).send().await;
        let values: Vec<serde_json::Value> = serde_json::from_slice(&reply.body).unwrap_or_else(|e| panic!("{e}"));
        numbers.extend(values.iter().filter_map(|value| value["number"].as_u64()));
        pages += 1;
        offset = reply.header("stream-next-offset").to_owned();
        if reply.has("stream-up-to-date") {
            break;
        }
    }
    assert_eq!(numbers, (0..200).collect::<Vec<u64>>());
    assert!(pages > 2, "{pages}");
}
