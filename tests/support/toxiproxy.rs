//! A network between the server and its store that does what networks do.

use std::env;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const READY_WITHIN: Duration = Duration::from_secs(10);

/// A running toxiproxy with one proxy; killed when dropped.
#[derive(Debug)]
pub struct Toxiproxy {
    process: Child,
    api: String,
    listen: String,
    client: reqwest::Client,
}

impl Toxiproxy {
    /// Starts one in front of `upstream` (`127.0.0.1:9000`), or says on the standard error that it is not installed.
    /// Where it must be (`CI` is set), panics.
    pub async fn start(upstream: &str) -> Option<Toxiproxy> {
        let Some(binary) = find_binary() else {
            let how = "set HEADWATER_TOXIPROXY or put the binary at .cache/bin/toxiproxy-server";
            assert!(env::var_os("CI").is_none(), "toxiproxy is not installed ({how})");
            eprintln!("skipped: toxiproxy is not installed ({how})");
            return None;
        };
        let (port, listen) = (free_port(), format!("127.0.0.1:{}", free_port()));
        let mut command = Command::new(&binary);
        command.args(["-host", "127.0.0.1", "-port", &port.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
        let api = format!("http://127.0.0.1:{port}");
        let proxy = Toxiproxy { process, api, listen, client: reqwest::Client::new() };
        proxy.wait().await;
        let body = json!({ "name": "store", "listen": proxy.listen, "upstream": upstream, "enabled": true });
        proxy.post("/proxies", &body).await;
        Some(proxy)
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.listen)
    }

    pub fn address(&self) -> &str {
        &self.listen
    }

    /// Adds a fault. `stream` is `upstream` (towards the store) or `downstream` (its answers).
    pub async fn add(&self, kind: &str, stream: &str, toxicity: f64, attributes: Value) {
        let body = json!({
            "name": "fault", "type": kind, "stream": stream, "toxicity": toxicity, "attributes": attributes,
        });
        self.post("/proxies/store/toxics", &body).await;
    }

    /// Closes all connections and takes no new ones, or takes them again.
    pub async fn enable(&self, enabled: bool) {
        self.post("/proxies/store", &json!({ "enabled": enabled })).await;
    }

    /// Closes all connections, and takes new ones to another store.
    pub async fn lead_to(&self, upstream: &str) {
        self.post("/proxies/store", &json!({ "upstream": upstream })).await;
    }

    /// No faults any more.
    pub async fn heal(&self) {
        self.post("/reset", &json!({})).await;
    }

    async fn post(&self, path: &str, body: &Value) {
        let answer = self.client.post(format!("{}{path}", self.api)).json(body).send().await;
        let answer = answer.unwrap_or_else(|error| panic!("toxiproxy {path}: {error}"));
        assert!(answer.status().is_success(), "toxiproxy {path} {body}: {}", answer.status());
    }

    async fn wait(&self) {
        let deadline = Instant::now() + READY_WITHIN;
        while self.client.get(format!("{}/version", self.api)).send().await.is_err() {
            assert!(Instant::now() < deadline, "toxiproxy does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Toxiproxy {
    fn drop(&mut self) {
        // It fails only if the process has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn find_binary() -> Option<PathBuf> {
    if let Some(named) = env::var_os("HEADWATER_TOXIPROXY") {
        return Some(PathBuf::from(named));
    }
    let cached = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".cache/bin/toxiproxy-server");
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).map(|directory| directory.join("toxiproxy-server")).collect::<Vec<_>>();
    [cached].into_iter().chain(in_path).find(|candidate| candidate.is_file())
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    address.unwrap_or_else(|error| panic!("free port: {error}")).port()
}
