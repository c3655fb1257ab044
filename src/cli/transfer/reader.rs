//! Reads an export, and believes nothing in it that is not verified.

use std::collections::BTreeSet;
use std::io::BufRead;

use sha2::{Digest, Sha256};

use super::export::hex;
use super::line::{End, Head, Line, Page, VERSION};
use crate::protocol::json::Messages;

/// What comes next in the file.
#[derive(Debug)]
pub enum Step {
    Begin(Head),
    Bytes(Messages),
    /// The stream's bytes were what they should be.
    End(End),
}

#[derive(Debug)]
enum State {
    Start,
    Between,
    Within { head: Box<Head>, at: u64, hash: Sha256 },
    Done,
}

#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// The line that was read last.
    number: u64,
    state: State,
    names: BTreeSet<String>,
}

impl<R: BufRead> Reader<R> {
    pub fn new(input: R) -> Reader<R> {
        Reader { input, number: 0, state: State::Start, names: BTreeSet::new() }
    }

    /// `None` at the end of a whole file. An error names the line.
    pub fn next(&mut self) -> Result<Option<Step>, String> {
        loop {
            let mut text = Vec::new();
            self.number += 1;
            let at_line = |number: u64, what: String| format!("line {number}: {what}");
            let read = self.input.read_until(b'\n', &mut text);
            read.map_err(|error| at_line(self.number, error.to_string()))?;
            if text.is_empty() {
                let what = match &self.state {
                    State::Done => return Ok(None),
                    State::Within { head, at, .. } => {
                        format!("the file is cut after {at} of {} bytes of stream {}", head.tail, head.name)
                    }
                    State::Start | State::Between => "the file is cut: its last line is missing".to_owned(),
                };
                return Err(at_line(self.number, what));
            }
            if let Some(step) = self.take(&text).map_err(|what| at_line(self.number, what))? {
                return Ok(Some(step));
            }
        }
    }

    fn take(&mut self, text: &[u8]) -> Result<Option<Step>, String> {
        let text = text.strip_suffix(b"\n").ok_or("it is cut, or no line of an export")?;
        let line = Line::decode(std::str::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())?)?;
        match (line, std::mem::replace(&mut self.state, State::Between)) {
            (Line::Export { version: VERSION }, State::Start) => Ok(None),
            (Line::Export { version }, State::Start) => {
                Err(format!("its format version is {version}; this program knows {VERSION}"))
            }
            (Line::Stream(head), State::Between) => self.begin(head).map(Some),
            (Line::Page(page), State::Within { head, at, hash }) => self.page(&page, head, at, hash).map(Some),
            (Line::End(end), State::Within { head, at, hash }) => finish(end, &head, at, hash).map(Some),
            (Line::Done { streams }, State::Between) if streams == self.names.len() as u64 => {
                self.state = State::Done;
                Ok(None)
            }
            _ => Err("it does not belong here: lines are missing, or in another order".to_owned()),
        }
    }

    fn begin(&mut self, head: Head) -> Result<Step, String> {
        head.name()?;
        head.content_type()?;
        head.lifetime()?;
        if !self.names.insert(head.name.clone()) {
            return Err(format!("stream {} is there twice", head.name));
        }
        self.state = State::Within { head: Box::new(head.clone()), at: 0, hash: Sha256::new() };
        Ok(Step::Begin(head))
    }

    fn page(&mut self, page: &Page, head: Box<Head>, at: u64, mut hash: Sha256) -> Result<Step, String> {
        if page.start != at {
            return Err(format!("a page of stream {} starts at {}, not at {at}", head.name, page.start));
        }
        if page.json.is_some() != head.content_type()?.is_json() {
            return Err(format!("a page of stream {} is of another content type", head.name));
        }
        let messages = page.messages()?;
        hash.update(&messages.bytes);
        self.state = State::Within { head, at: at + messages.bytes.len() as u64, hash };
        Ok(Step::Bytes(messages))
    }
}

fn finish(end: End, head: &Head, at: u64, hash: Sha256) -> Result<Step, String> {
    if end.bytes != at || head.tail != at {
        return Err(format!("stream {} has {at} bytes instead of {}", head.name, head.tail));
    }
    if hex(&hash.finalize()) != end.sha256 {
        return Err(format!("the bytes of stream {} are not those that were exported: another SHA-256", head.name));
    }
    Ok(Step::End(end))
}
