//! What must be true of a stream's content.

use std::collections::BTreeMap;

use super::{Message, Plain, Producer, parts};

/// Checks one stream: every acknowledged append is there, whole, exactly once and in order; an idempotent append at
/// most once whether or not it was acknowledged; a plain append at most once per attempt; and nothing else is there.
pub fn verify(content: &[Message], producers: &[&Producer], plain: &[&Plain]) -> Result<(), String> {
    let mut by_writer = appends(content)?;
    for producer in producers {
        let stored = by_writer.remove(producer.id.as_str()).unwrap_or_default();
        let wanted = (0..producer.acknowledged).collect::<Vec<_>>();
        if stored != wanted {
            return Err(format!("{}: {}", producer.id, difference(&stored, &wanted)));
        }
    }
    for writer in plain {
        let stored = by_writer.remove(writer.id.as_str()).unwrap_or_default();
        verify_plain(&stored, writer).map_err(|why| format!("{}: {why}", writer.id))?;
    }
    match by_writer.keys().next() {
        None => Ok(()),
        Some(stranger) => Err(format!("{stranger} has written nothing here")),
    }
}

/// Checks that a reader saw the first part of what the stream has, message for message.
pub fn verify_prefix(seen: &[Message], content: &[Message]) -> Result<(), String> {
    match seen.iter().zip(content).position(|(seen, stored)| seen != stored) {
        Some(at) => Err(format!("message {at} was {:?} and is {:?}", seen[at], content[at])),
        None if seen.len() > content.len() => Err(format!("{} seen, {} stored", seen.len(), content.len())),
        None => Ok(()),
    }
}

fn verify_plain(stored: &[u64], writer: &Plain) -> Result<(), String> {
    let mut times = BTreeMap::new();
    for seq in stored {
        *times.entry(*seq).or_insert(0) += 1;
    }
    if let Some((seq, times)) = times.iter().find(|(seq, times)| **times > 1 || **seq >= writer.attempts) {
        return Err(format!("{seq} is stored {times} times, {} were attempted", writer.attempts));
    }
    if let Some(lost) = writer.acknowledged.iter().find(|seq| !times.contains_key(*seq)) {
        return Err(format!("{lost} was acknowledged and is not stored"));
    }
    // Those that were not heard of may land later than the next.
    let heard = stored.iter().filter(|seq| writer.acknowledged.contains(seq)).collect::<Vec<_>>();
    if heard.is_sorted() { Ok(()) } else { Err("not in order".to_owned()) }
}

/// The numbers of each writer's appends as they are stored. The messages of an append must lie side by side.
fn appends(content: &[Message]) -> Result<BTreeMap<&str, Vec<u64>>, String> {
    let mut by_writer = BTreeMap::<&str, Vec<u64>>::new();
    let mut rest = content;
    while let Some(first) = rest.first() {
        let length = usize::try_from(parts(first.seq)).unwrap_or(usize::MAX);
        let append = &rest[..length.min(rest.len())];
        let whole = append.len() == length
            && append.iter().zip(0..).all(|(message, part)| {
                (message.by.as_str(), message.seq, message.part) == (first.by.as_str(), first.seq, part)
            });
        if !whole {
            return Err(format!("an append is torn: {append:?}"));
        }
        by_writer.entry(&first.by).or_default().push(first.seq);
        rest = &rest[length..];
    }
    Ok(by_writer)
}

fn difference(stored: &[u64], wanted: &[u64]) -> String {
    let at = stored.iter().zip(wanted).position(|(stored, wanted)| stored != wanted);
    let at = at.unwrap_or_else(|| stored.len().min(wanted.len()));
    let around = |list: &[u64]| format!("{:?}", &list[at.saturating_sub(2)..list.len().min(at + 4)]);
    let (length, acknowledged) = (stored.len(), wanted.len());
    format!("{length} stored, {acknowledged} acknowledged; at {at}: {} for {}", around(stored), around(wanted))
}

#[cfg(test)]
mod tests {
    use super::super::client;
    use super::*;

    fn stored(appends: &[(&str, u64)]) -> Vec<Message> {
        let mut messages = Vec::new();
        for &(by, seq) in appends {
            messages.extend((0..parts(seq)).map(|part| Message { by: by.to_owned(), seq, part }));
        }
        messages
    }

    fn producer(acknowledged: u64) -> Producer {
        let mut producer = Producer::new(&client(), &[String::new()], "p", 0);
        producer.acknowledged = acknowledged;
        producer
    }

    fn plain(attempts: u64, acknowledged: &[u64]) -> Plain {
        let mut plain = Plain::new(&client(), "", "q", 0);
        plain.attempts = attempts;
        plain.acknowledged = acknowledged.iter().copied().collect();
        plain
    }

    #[test]
    fn what_is_lost_doubled_torn_or_out_of_order_is_found() {
        let good = stored(&[("p", 0), ("q", 0), ("p", 1), ("q", 2), ("p", 2)]);
        let check = |content: &[Message]| verify(content, &[&producer(3)], &[&plain(3, &[0, 2])]);
        assert_eq!(check(&good), Ok(()));
        for wrong in [
            stored(&[("p", 0), ("q", 0), ("p", 1), ("q", 2)]),
            stored(&[("p", 0), ("q", 0), ("p", 1), ("q", 2), ("p", 2), ("p", 2)]),
            stored(&[("p", 0), ("p", 0), ("q", 0), ("p", 1), ("q", 2), ("p", 2)]),
            stored(&[("p", 1), ("q", 0), ("p", 0), ("q", 2), ("p", 2)]),
            stored(&[("p", 0), ("q", 0), ("p", 1), ("p", 2)]),
            stored(&[("p", 0), ("q", 2), ("q", 0), ("p", 1), ("p", 2)]),
            stored(&[("p", 0), ("q", 0), ("q", 1), ("q", 1), ("p", 1), ("q", 2), ("p", 2)]),
            stored(&[("p", 0), ("q", 0), ("p", 1), ("q", 2), ("q", 3), ("p", 2)]),
            stored(&[("p", 0), ("q", 0), ("p", 1), ("q", 2), ("p", 2), ("r", 0)]),
            good[..good.len() - 1].to_vec(),
        ] {
            assert!(check(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_unheard_plain_append_may_be_stored_once_and_late() {
        let content = stored(&[("q", 0), ("q", 2), ("q", 1)]);
        assert_eq!(verify(&content, &[], &[&plain(3, &[0, 2])]), Ok(()));
    }

    #[test]
    fn a_reader_must_have_seen_a_prefix() {
        let content = stored(&[("p", 0), ("p", 1), ("p", 2)]);
        assert_eq!(verify_prefix(&content[..3], &content), Ok(()));
        assert!(verify_prefix(&content[1..3], &content).is_err());
        assert!(verify_prefix(&content, &content[..3]).is_err());
    }
}
