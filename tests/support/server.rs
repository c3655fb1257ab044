//! The real binary as a process of its own, started and ended as an operator or a crash would.

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::time::sleep;

use super::Memory;

const READY_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A server that keeps its address over restarts. Killed when dropped; shows its log if that is because of a panic.
#[derive(Debug)]
pub struct Server {
    flags: Vec<String>,
    address: String,
    output: TempDir,
    process: Option<Child>,
}

impl Server {
    /// Starts one on a free port and waits until it is ready.
    pub async fn start(flags: &[String]) -> Server {
        let output = tempfile::tempdir().unwrap_or_else(|error| panic!("temporary directory: {error}"));
        let address = "127.0.0.1:0".to_owned();
        let mut server = Server { flags: flags.to_vec(), address, output, process: None };
        server.restart().await;
        server
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address.parse().unwrap_or_else(|error| panic!("{}: {error}", self.address))
    }

    pub fn memory(&self) -> Memory {
        Memory::of(self.process.as_ref().unwrap_or_else(|| panic!("the server is not running")).id())
    }

    /// A value of `/metrics`, by its name and labels.
    pub async fn metric(&self, name: &str) -> u64 {
        let answer = reqwest::get(self.url("/metrics")).await.unwrap_or_else(|error| panic!("metrics: {error}"));
        let text = answer.text().await.unwrap_or_else(|error| panic!("metrics: {error}"));
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// Starts it again, at the address that it had.
    pub async fn restart(&mut self) {
        self.kill();
        self.launch();
        let deadline = Instant::now() + READY_WITHIN;
        while !self.is_ready().await {
            if let Some(status) = self.exited() {
                panic!("the server ended while it was started: {status}\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "the server does not become ready\n{}", self.log());
            sleep(LOOK_EVERY).await;
        }
    }

    /// As a crash would: SIGKILL, nothing is flushed, nobody is told.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It fails only if the process has ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// SIGTERM.
    pub fn ask_to_stop(&self) {
        self.signal("-TERM");
    }

    /// SIGSTOP: it does nothing any more, and keeps its connections.
    pub fn suspend(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let process = self.process.as_ref().unwrap_or_else(|| panic!("the server is not running"));
        let sent = Command::new("kill").args([signal, &process.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill {signal}");
    }

    /// How it ended, by itself.
    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.exited() {
                self.process = None;
                return status;
            }
            assert!(Instant::now() < deadline, "the server has not ended after {within:?}\n{}", self.log());
            sleep(LOOK_EVERY).await;
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.process.is_some() && self.exited().is_none()
    }

    fn exited(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().and_then(|process| process.try_wait().ok().flatten())
    }

    fn launch(&mut self) {
        let open = |name: &str| {
            let file = File::options().create(true).append(true).open(self.output.path().join(name));
            file.unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        let said = File::create(self.output.path().join("said")).unwrap_or_else(|error| panic!("said: {error}"));
        let command = Command::new(env!("CARGO_BIN_EXE_headwater"))
            .args(["serve", "--listen", &self.address])
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(said)
            .stderr(open("log"))
            .spawn();
        self.process = Some(command.unwrap_or_else(|error| panic!("headwater: {error}")));
    }

    async fn is_ready(&mut self) -> bool {
        let said = std::fs::read_to_string(self.output.path().join("said")).unwrap_or_default();
        let Some(address) = address_in(&said) else { return false };
        self.address = address.to_owned();
        let answer = reqwest::Client::new().get(self.url("/readyz")).timeout(Duration::from_secs(5)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// The end of what it logged.
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.output.path().join("log")).unwrap_or_default();
        let lines = log.lines().rev().take(40).collect::<Vec<_>>();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("log of the server at {}:\n{}", self.address, self.log());
        }
    }
}

/// `headwater 0.1.0 listens on http://127.0.0.1:4437, data in …`
fn address_in(said: &str) -> Option<&str> {
    let line = said.lines().find(|line| line.contains(" listens on "))?;
    let (_, after) = line.split_once("http://")?;
    after.split_once(',').map(|(address, _)| address.trim_end_matches('/'))
}
