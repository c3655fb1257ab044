//! A real S3 server for tests: one MinIO process on a free loopback port, its data in a temporary directory.

use std::env;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub const ACCESS_KEY: &str = "headwater";
pub const SECRET_KEY: &str = "headwater-secret";
const BUCKET: &str = "headwater-test";
const LIVE_WITHIN: Duration = Duration::from_secs(30);

/// A running MinIO with one empty bucket; killed when dropped.
#[derive(Debug)]
pub struct Minio {
    binary: PathBuf,
    address: SocketAddr,
    directory: TempDir,
    process: Option<Child>,
}

impl Minio {
    /// Starts one, or says on the standard error that it is not installed. Where it must be (`CI` is set), panics.
    pub fn start() -> Option<Minio> {
        let Some(binary) = find_binary() else {
            let how = "set HEADWATER_MINIO, put the binary at .cache/bin/minio, or go install github.com/minio/minio";
            assert!(env::var_os("CI").is_none(), "minio is not installed ({how})");
            eprintln!("skipped: minio is not installed ({how})");
            return None;
        };
        let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("temporary directory: {error}"));
        // A directory below the data directory is a bucket.
        std::fs::create_dir_all(directory.path().join(BUCKET)).unwrap_or_else(|error| panic!("bucket: {error}"));
        let mut minio = Minio { binary, address: free_address(), directory, process: None };
        // Another process may take the free port before minio does.
        for _ in 0..3 {
            if minio.launch() {
                return Some(minio);
            }
            minio.stop();
            minio.address = free_address();
        }
        panic!("minio does not become live: {}", minio.log());
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn bucket(&self) -> &'static str {
        BUCKET
    }

    /// Kills the process, as an outage of the store would. Its data stay.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It fails only if the process has ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts it again with the same address and data.
    pub fn restart(&mut self) {
        self.stop();
        assert!(self.launch(), "minio does not become live again: {}", self.log());
    }

    fn launch(&mut self) -> bool {
        let log = std::fs::File::create(self.log_path()).unwrap_or_else(|error| panic!("log of minio: {error}"));
        let command = Command::new(&self.binary)
            .arg("server")
            .args(["--quiet", "--address", &self.address.to_string()])
            .arg(self.directory.path())
            .env("MINIO_ROOT_USER", ACCESS_KEY)
            .env("MINIO_ROOT_PASSWORD", SECRET_KEY)
            .env("MINIO_BROWSER", "off")
            .env("MINIO_UPDATE", "off")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.process = Some(command.unwrap_or_else(|error| panic!("{}: {error}", self.binary.display())));
        self.becomes_live()
    }

    fn becomes_live(&mut self) -> bool {
        let started = Instant::now();
        while started.elapsed() < LIVE_WITHIN {
            let ended = self.process.as_mut().and_then(|process| process.try_wait().ok().flatten()).is_some();
            if ended {
                return false;
            }
            if is_ready(self.address) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().with_extension("minio.log")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

impl Drop for Minio {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_file(self.log_path());
    }
}

fn find_binary() -> Option<PathBuf> {
    if let Some(named) = env::var_os("HEADWATER_MINIO") {
        return Some(PathBuf::from(named));
    }
    let cached = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".cache/bin/minio");
    let go_path = env::var_os("GOPATH").map(PathBuf::from);
    let go_path = go_path.or_else(|| env::home_dir().map(|home| home.join("go")));
    let in_go = go_path.map(|path| path.join("bin/minio"));
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).map(|directory| directory.join("minio")).collect::<Vec<_>>();
    [cached].into_iter().chain(in_go).chain(in_path).find(|candidate| candidate.is_file())
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap_or_else(|error| panic!("free port: {error}"));
    listener.local_addr().unwrap_or_else(|error| panic!("free port: {error}"))
}

/// Whether it serves S3 requests. Its health address answers earlier than that, so ask for what a client would: an
/// anonymous look at the bucket is refused with 403 once the server is up, and with 503 before.
fn is_ready(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET /{BUCKET} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(12).read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer == "HTTP/1.1 403")
}
