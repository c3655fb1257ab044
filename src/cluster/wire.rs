//! Log objects as a response body: where they start, when the position after them was absent, and each with its length.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::engine::LogPart;
use crate::store::StoreTime;

pub fn encode(part: &LogPart) -> Bytes {
    let bytes: usize = part.objects.iter().map(|object| object.len() + 4).sum();
    let mut body = BytesMut::with_capacity(20 + bytes);
    body.put_u64(part.from);
    body.put_u64(part.absent_at.map_or(0, |at| at.0));
    for object in &part.objects {
        body.put_u32(u32::try_from(object.len()).unwrap_or(u32::MAX));
        body.put_slice(object);
    }
    body.freeze()
}

/// `None` if that is not what [`encode`] makes.
pub fn decode(body: &Bytes) -> Option<LogPart> {
    let mut rest = body.clone();
    let (from, absent_at) = (rest.try_get_u64().ok()?, rest.try_get_u64().ok()?);
    let mut part = LogPart { from, objects: Vec::new(), absent_at: (absent_at > 0).then_some(StoreTime(absent_at)) };
    while !rest.is_empty() {
        let length = rest.try_get_u32().ok()? as usize;
        if length > rest.len() {
            return None;
        }
        // Not a slice: each is kept for itself, and for how long depends on who reads it.
        part.objects.push(Bytes::copy_from_slice(&rest.split_to(length)));
    }
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_arrives_and_nothing_else_is_taken_for_it() {
        let objects = vec![Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"three")];
        for absent_at in [None, Some(StoreTime(7))] {
            let part = LogPart { from: 5, objects: objects.clone(), absent_at };
            let body = encode(&part);
            assert_eq!(decode(&body).as_ref(), Some(&part));
            assert_eq!(decode(&body.slice(..body.len() - 1)), None);
        }
        assert_eq!(decode(&Bytes::from_static(b"too short")), None);
    }
}
