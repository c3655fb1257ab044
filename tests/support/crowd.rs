//! A crowd of clients, each with a connection of its own and one request on it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures::StreamExt;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Connections that are opened at a time.
const AT_A_TIME: usize = 128;
/// As small as a client's buffers may be, so that one that does not read stalls its server soon.
const RECEIVE_BUFFER: u32 = 4 << 10;
/// A segment as on a real network: on a loopback connection it would be 64 KiB, and the server's kernel would take
/// megabytes for each client.
const SEGMENT: u32 = 1400;
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Crowd(pub Vec<TcpStream>);

impl Crowd {
    /// Connects `size` clients from the loopback address `from`, so that crowds do not share ports, and sends each one's
    /// request: a method and a target.
    pub async fn gather(to: SocketAddr, from: Ipv4Addr, size: usize, request: impl Fn(usize) -> String) -> Crowd {
        let clients = futures::stream::iter(0..size).map(|n| client(to, from, request(n)));
        Crowd(clients.buffer_unordered(AT_A_TIME).collect().await)
    }

    /// What each was answered, up to the end of its connection.
    pub async fn answers(self) -> Vec<String> {
        let answers = futures::stream::iter(self.0).map(async |mut client| {
            let mut answer = Vec::new();
            // A connection that is cut off has been answered with what came before.
            let read = tokio::time::timeout(PATIENCE, client.read_to_end(&mut answer)).await;
            let _ = read.unwrap_or_else(|_| panic!("no end: {}", String::from_utf8_lossy(&answer)));
            String::from_utf8_lossy(&answer).into_owned()
        });
        answers.buffer_unordered(AT_A_TIME).collect().await
    }
}

async fn client(to: SocketAddr, from: Ipv4Addr, request: String) -> TcpStream {
    let connected = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        SockRef::from(&socket).set_tcp_mss(SEGMENT)?;
        let mut stream = socket.connect(to).await?;
        stream.write_all(format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await?;
        std::io::Result::Ok(stream)
    };
    connected.await.unwrap_or_else(|error| panic!("client: {error}"))
}
