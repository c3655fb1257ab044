//! `headwater check` and `headwater gc` on buckets that servers write to.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::load::{Load, Size, assert_shows};
use crate::support::{Minio, Server, model, on_bucket, seed};

/// Everything is moved, merged and deleted all the time.
const RESTLESS: [&str; 12] = [
    "--seal-idle",
    "500ms",
    "--seal-age",
    "1s",
    "--grace",
    "10s",
    "--sync-interval",
    "200ms",
    "--inline-bytes",
    "100B",
    "--checkpoint-entries",
    "20",
];

fn restless(store: &[String]) -> Vec<String> {
    store.iter().cloned().chain(RESTLESS.map(str::to_owned)).collect()
}

/// Runs a tool. The flags of the store are the server's.
pub fn tool(args: &[&str], store: &[String]) -> (i32, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_headwater")).args(args).args(store).output();
    let Output { status, stdout, stderr } = run.unwrap_or_else(|error| panic!("headwater {args:?}: {error}"));
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.code().unwrap_or(-1), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn checking_and_collecting_under_load_finds_no_damage_and_does_none() {
    let Some(minio) = Minio::start() else { return };
    let store = on_bucket(&minio.endpoint(), minio.bucket(), "tools");
    let mut server = Server::start(&restless(&store)).await;
    let size = Size { streams: 6, producers: 6, plain: 2, readers: 2, pause: Duration::from_millis(20) };
    let load = Load::start(&[&server], size, seed()).await;
    let (client, mut collected) = (model::client(), String::new());
    for round in 0..8 {
        // Nobody asks for it any more.
        let put = client.put(server.url(&format!("/v1/stream/over{round}"))).header("content-type", "text/plain");
        let put = put.header("stream-ttl", "1").body("for a while").send().await;
        assert!(put.is_ok_and(|answer| answer.status() == 201), "over{round}");
        tokio::time::sleep(Duration::from_secs(2)).await;
        if round == 4 {
            // It leaves behind what it was about to do.
            server.restart().await;
        }
        let (code, said) = tool(&["check"], &store);
        assert_eq!(code, 0, "{said}");
        let (code, said) = tool(&["gc"], &store);
        assert_eq!(code, 0, "{said}");
        collected.push_str(&said);
    }
    for round in 0..6 {
        assert!(collected.contains(&format!("streams/over{round}/manifest")), "over{round} is not among {collected}");
    }
    let written = load.finish(&server).await;
    assert_shows(&server, &written).await;
    server.restart().await;
    assert_shows(&server, &written).await;
    let (code, said) = tool(&["check"], &store);
    assert_eq!(code, 0, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_object_is_named_and_the_rest_goes_on() {
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("temporary directory: {error}"));
    let store = ["--store".to_owned(), format!("local:{}", directory.path().display())];
    let server = Server::start(&restless(&store)).await;
    let client = model::client();
    let urls = ["/v1/stream/damaged", "/v1/stream/whole"].map(|path| server.url(path));
    for url in &urls {
        let body = "enough for a chunk. ".repeat(20);
        let put = client.put(url).header("content-type", "text/plain").body(body).send().await;
        assert!(put.is_ok_and(|answer| answer.status().is_success()), "{url}");
    }
    let chunk = loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let found = files(directory.path()).into_iter().find(|path| is_chunk(path, "damaged"));
        if let Some(chunk) = found.filter(|_| tool(&["check"], &store).1.contains("2 chunks")) {
            break chunk;
        }
    };
    let mut bytes = std::fs::read(&chunk).unwrap_or_else(|error| panic!("{}: {error}", chunk.display()));
    bytes[5] ^= 1;
    std::fs::write(&chunk, bytes).unwrap_or_else(|error| panic!("{}: {error}", chunk.display()));
    let (code, said) = tool(&["check"], &store);
    assert_eq!(code, 1, "{said}");
    assert!(said.lines().next().is_some_and(|line| line.starts_with("damage streams/damaged/")), "{said}");
    assert_eq!(tool(&["check", "--quick"], &store).0, 0, "only its bytes are wrong");
    std::fs::remove_file(&chunk).unwrap_or_else(|error| panic!("{}: {error}", chunk.display()));
    let (code, said) = tool(&["check", "--quick"], &store);
    assert_eq!((code, said.contains("it is missing")), (1, true), "{said}");
    let statuses = [&urls[0], &urls[1]].map(|url| client.get(url).send());
    let [damaged, whole] = statuses;
    assert!(damaged.await.is_ok_and(|answer| answer.status().is_server_error()));
    assert!(whole.await.is_ok_and(|answer| answer.status().is_success()));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_listed_while_a_server_runs_and_after_it() {
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("temporary directory: {error}"));
    let store = ["--store".to_owned(), format!("local:{}", directory.path().display())];
    let mut server = Server::start(&store).await;
    let client = model::client();
    for name in ["chat/a", "chat/b", "other"] {
        let put = client.put(server.url(&format!("/v1/stream/{name}"))).header("content-type", "text/plain");
        let put = put.header("stream-closed", "true").body("hello").send().await;
        assert!(put.is_ok_and(|answer| answer.status().is_success()), "{name}");
    }
    for _ in ["running", "killed"] {
        let (code, said) = tool(&["list", "--log", "error", "--prefix", "chat/"], &store);
        assert_eq!((code, said.as_str()), (0, "chat/a\ttext/plain\t5\tclosed\nchat/b\ttext/plain\t5\tclosed\n"));
        server.kill();
    }
    let (code, said) = tool(&["list", "--log", "error", "--json"], &store);
    let names = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let names = names.map(|item| item["name"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>();
    assert_eq!((code, names), (0, ["chat/a", "chat/b", "other"].map(str::to_owned).to_vec()), "{said}");
}

#[test]
fn a_place_without_data_is_an_error() {
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("temporary directory: {error}"));
    let store = ["--store".to_owned(), format!("local:{}", directory.path().display())];
    for tool_ in ["check", "gc", "list"] {
        let (code, said) = tool(&[tool_], &store);
        assert_eq!((code, said.contains("is this where the data is?")), (2, true), "{said}");
    }
}

fn is_chunk(path: &Path, stream: &str) -> bool {
    let text = path.to_string_lossy();
    text.contains(&format!("/streams/{stream}/")) && !text.contains("manifest")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let of_entry = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).flat_map(of_entry).collect()
}
