//! Right checksums for objects that were changed: what only a bug, or someone who may write to the bucket, could make.

use bytes::Bytes;

/// A log entry, of all that its checksum covers.
pub fn entry(covered: &[u8]) -> Bytes {
    [covered, &crc32fast::hash(covered).to_le_bytes()].concat().into()
}

/// A document around a body, whatever that is.
pub fn document(format: &str, version: u32, body: &[u8]) -> Bytes {
    let crc = crc32fast::hash(body);
    let start = format!("{{\"format\":\"{format}\",\"version\":{version},\"write_id\":\"{:032x}\",\"crc32\":{crc},", 7);
    [start.as_bytes(), b"\"body\":", body, b"}"].concat().into()
}

/// A chunk: the checksums of its footer and of its only block, as far as its lengths allow to find them.
pub fn chunk(nonce: u128, object: &[u8]) -> Bytes {
    const FOOTER: usize = 21;
    let mut bytes = object.to_vec();
    let Some(footer_at) = bytes.len().checked_sub(FOOTER) else { return bytes.into() };
    let field = |at: usize, width: usize| {
        let mut number = [0; 8];
        number[..width].copy_from_slice(&object[at..at + width]);
        u64::from_le_bytes(number)
    };
    let (length, index_length) = (field(footer_at, 8), field(footer_at + 8, 4) as usize);
    let Some(index_at) = footer_at.checked_sub(index_length) else { return bytes.into() };
    let crc = crc32fast::hash(&[&nonce.to_le_bytes()[..], &bytes[index_at..footer_at + 12]].concat());
    bytes[footer_at + 12..footer_at + 16].copy_from_slice(&crc.to_le_bytes());
    if length < index_at as u64 && length + 4 == index_at as u64 {
        let first_block = [&nonce.to_le_bytes()[..], &[0; 8], &bytes[..length as usize]].concat();
        let crc = crc32fast::hash(&first_block);
        bytes[length as usize..index_at].copy_from_slice(&crc.to_le_bytes());
    }
    bytes.into()
}
