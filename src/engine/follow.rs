//! Waiters: who wants to know that a stream has changed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::protocol::StreamName;

/// The waiters of one shard's streams. Streams without waiters take no memory here.
#[derive(Debug, Default)]
pub(super) struct Followers(Mutex<BTreeMap<StreamName, watch::Sender<()>>>);

impl Followers {
    pub fn subscribe(self: &Arc<Self>, name: &StreamName) -> Changes {
        let mut map = self.lock();
        let sender = map.entry(name.clone()).or_insert_with(|| watch::channel(()).0);
        Changes { receiver: sender.subscribe(), name: name.clone(), followers: Arc::clone(self) }
    }

    pub fn notify(&self, name: &StreamName) {
        if let Some(sender) = self.lock().get(name) {
            sender.send_replace(());
        }
    }

    /// For changes whose extent is not known.
    pub fn notify_all(&self) {
        self.lock().values().for_each(|sender| {
            sender.send_replace(());
        });
    }

    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<StreamName, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells that something of a stream changed: bytes, closure, deletion.
#[derive(Debug)]
pub struct Changes {
    receiver: watch::Receiver<()>,
    name: StreamName,
    followers: Arc<Followers>,
}

impl Changes {
    /// Returns when the stream has changed since these changes were asked for or last awaited. Safe to drop and call
    /// again: nothing is missed.
    pub async fn next(&mut self) {
        // The sender lives as long as there are receivers, so an error cannot be; if it were, looking again is right.
        let _ = self.receiver.changed().await;
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        let mut map = self.followers.lock();
        // This receiver is still counted.
        if map.get(&self.name).is_some_and(|sender| sender.receiver_count() <= 1) {
            map.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> StreamName {
        StreamName::new(text).unwrap_or_else(|e| panic!("{e}"))
    }

    #[tokio::test]
    async fn a_change_between_subscribing_and_waiting_is_not_missed() {
        let followers = Arc::new(Followers::default());
        let mut changes = followers.subscribe(&name("a"));
        followers.notify(&name("b"));
        followers.notify(&name("a"));
        changes.next().await;
        let mut second = followers.subscribe(&name("a"));
        followers.notify_all();
        tokio::join!(changes.next(), second.next());
    }

    #[test]
    fn streams_without_waiters_are_forgotten() {
        let followers = Arc::new(Followers::default());
        let (one, two) = (followers.subscribe(&name("a")), followers.subscribe(&name("a")));
        drop(one);
        assert!(!followers.is_empty());
        drop(two);
        assert!(followers.is_empty());
    }
}
