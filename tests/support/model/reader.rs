//! Readers that tail a stream and go on where they were, whatever happens to the server.

use std::time::Duration;

use reqwest::{Client, StatusCode};

use super::{Message, Stop, parse, read_page};

/// How a reader waits for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    LongPoll,
    Sse,
}

/// A reader from the stream's start.
#[derive(Debug)]
pub struct Reader {
    /// The same stream at each server: each request goes to the next.
    urls: Vec<String>,
    requests: usize,
    pub live: Live,
    client: Client,
    offset: String,
    pub seen: Vec<Message>,
    /// Responses that broke off.
    pub interrupted: u64,
}

impl Reader {
    pub fn new(client: &Client, urls: &[String], live: Live) -> Reader {
        let (client, urls, offset) = (client.clone(), urls.to_vec(), "-1".to_owned());
        Reader { urls, requests: 0, live, client, offset, seen: Vec::new(), interrupted: 0 }
    }

    fn request(&mut self, live: &str) -> reqwest::RequestBuilder {
        self.requests += 1;
        let url = &self.urls[self.requests % self.urls.len()];
        self.client.get(url).query(&[("offset", self.offset.as_str()), ("live", live)])
    }

    /// Reads until told to stop, at the end of a response.
    pub async fn run(mut self, stop: Stop) -> Reader {
        while !stop.is_set() {
            let went = match self.live {
                Live::LongPoll => self.poll().await,
                Live::Sse => self.listen(&stop).await,
            };
            if went.is_err() {
                self.interrupted += 1;
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }
        self
    }

    async fn poll(&mut self) -> Result<(), String> {
        let answer = self.request("long-poll").timeout(Duration::from_secs(10)).send().await;
        let page = read_page(answer.map_err(|error| error.to_string())?).await?;
        self.seen.extend(page.messages);
        self.offset = page.next;
        Ok(())
    }

    async fn listen(&mut self, stop: &Stop) -> Result<(), String> {
        let answer = self.request("sse").send().await;
        let mut answer = answer.map_err(|error| error.to_string())?;
        if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
            return Err("503".to_owned());
        }
        assert!(answer.status().is_success(), "{}: {}", answer.url(), answer.status());
        let (mut text, mut unconfirmed) = (String::new(), Vec::new());
        while let Some(bytes) = answer.chunk().await.map_err(|error| error.to_string())? {
            text.push_str(&String::from_utf8_lossy(&bytes));
            while let Some((event, rest)) = text.split_once("\n\n") {
                self.take(event, &mut unconfirmed);
                text = rest.to_owned();
            }
            if stop.is_set() {
                break;
            }
        }
        Ok(())
    }

    /// Data count as seen once a control event says where they end: only then would they not be read again.
    fn take(&mut self, event: &str, unconfirmed: &mut Vec<Message>) {
        let data = event.lines().filter_map(|line| line.strip_prefix("data:")).collect::<String>();
        if event.contains("event: data") {
            unconfirmed.extend(parse(data.as_bytes()));
        } else if event.contains("event: control") {
            let control = serde_json::from_str::<serde_json::Value>(&data).unwrap_or_default();
            let next = control["streamNextOffset"].as_str();
            self.offset = next.unwrap_or_else(|| panic!("control event {data}")).to_owned();
            self.seen.append(unconfirmed);
        }
    }
}
