//! `headwater export` and `headwater import`, from a bucket that a server writes to into one that another server serves.

use std::path::Path;

use crate::support::{Server, model};
use crate::tools::tool;

fn store_in(directory: &Path, name: &str) -> [String; 2] {
    ["--store".to_owned(), format!("local:{}", directory.join(name).display())]
}

async fn put(server: &Server, name: &str, content_type: &str, body: Vec<u8>) {
    let put = model::client().put(server.url(&format!("/v1/stream/{name}"))).header("content-type", content_type);
    let put = put.body(body).send().await;
    assert!(put.is_ok_and(|answer| answer.status().is_success()), "{name}");
}

/// What the server has, page by page.
async fn content(server: &Server, name: &str) -> Vec<u8> {
    let (client, mut content, mut offset) = (model::client(), Vec::new(), "-1".to_owned());
    loop {
        let page = client.get(server.url(&format!("/v1/stream/{name}?offset={offset}"))).send().await;
        let page = page.unwrap_or_else(|error| panic!("{name}: {error}"));
        let header = |key: &str| page.headers().get(key).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (next, up_to_date) = (header("stream-next-offset"), header("stream-up-to-date"));
        offset = next.unwrap_or_else(|| panic!("{name}: {page:?}"));
        content.extend(page.bytes().await.unwrap_or_else(|error| panic!("{name}: {error}")));
        if up_to_date.is_some() {
            return content;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_move_to_another_bucket_while_servers_run() {
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("temporary directory: {error}"));
    let (from, to) = (store_in(directory.path(), "from"), store_in(directory.path(), "to"));
    let path = directory.path().join("streams");
    let file = path.display().to_string();
    let source = Server::start(&from).await;
    let target = Server::start(&to).await;
    let large: Vec<u8> = (0..10_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    put(&source, "large", "application/octet-stream", large[..4_500_000].to_vec()).await;
    let rest = model::client().post(source.url("/v1/stream/large")).header("content-type", "application/octet-stream");
    assert!(rest.body(large[4_500_000..].to_vec()).send().await.is_ok_and(|answer| answer.status().is_success()));
    let messages = (0..60_000).map(|n| format!("{{\"n\" : {n}}}")).collect::<Vec<_>>().join(",");
    put(&source, "json", "application/json", format!("[{messages}]").into_bytes()).await;

    let (code, said) = tool(&["export", "--prefix", "", &file], &from);
    assert_eq!((code, said.contains("exported 2 streams, ")), (0, true), "{said}");
    assert_eq!(tool(&["export", "--stream", "json", &file], &from).0, 2, "the file is there");
    let (code, said) = tool(&["import", &file, "--dry-run"], &to);
    assert_eq!((code, said.contains("would import 2 streams")), (0, true), "{said}");
    let (code, said) = tool(&["import", &file], &to);
    assert_eq!((code, said.contains("imported 2 streams, ")), (0, true), "{said}");
    assert!(content(&target, "large").await == large, "large is not what it was");
    assert!(content(&target, "json").await == content(&source, "json").await, "json is not what it was");

    let (code, said) = tool(&["import", &file], &to);
    assert_eq!((code, said.contains("json: it exists")), (2, true), "{said}");
    let (code, said) = tool(&["import", &file, "--resume"], &to);
    assert_eq!((code, said.contains("2 streams there already")), (0, true), "{said}");
    let more = model::client().post(target.url("/v1/stream/large")).header("content-type", "application/octet-stream");
    assert!(more.body("more").send().await.is_ok_and(|answer| answer.status().is_success()));
    let (code, said) = tool(&["import", &file, "--resume"], &to);
    assert_eq!((code, said.contains("large: it exists, but its bytes are not")), (2, true), "{said}");

    let mut bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let line = bytes.iter().take(5_000_000).filter(|byte| **byte == b'\n').count() + 1;
    bytes[5_000_000] ^= 1;
    std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("{file}: {error}"));
    let (code, said) = tool(&["import", &file], &to);
    assert_eq!((code, said.contains(&format!("line {line}: "))), (2, true), "{said}");
}
