//! Sealed chunks: a run of one stream's bytes, immutable.
//!
//! ```text
//! block crc32:u32  block crc32:u32 …      the stream's bytes in blocks of 1 MiB (the last may be shorter)
//! ends (varints)                          where each message ends: the index
//! data_length:u64 index_length:u32 crc32:u32 version:u8 "HWCK"     footer; the crc is of the index and the two lengths
//! ```
//! Any range of the bytes is read with one ranged GET of the blocks that cover it, each verified by its own checksum;
//! where a block lies follows from arithmetic alone, so no index has to be fetched first.
//!
//! All checksums begin with the chunk's nonce, those of blocks also with the block's number: a whole block of another
//! chunk, or from another place, is damage too.

use std::ops::Range;

use bytes::Bytes;

use super::Damaged;
use super::codec::{Reader, Writer};

const MAGIC: &[u8; 4] = b"HWCK";
/// Version 1, whose checksums were of the bytes alone, was never released.
const VERSION: u8 = 2;
/// Bytes of data in a block.
pub const BLOCK: u64 = 1 << 20;
const CRC: u64 = 4;
const FOOTER: usize = 8 + 4 + 4 + 1 + 4;

/// The object of the chunk of this nonce, for `pieces` of data whose messages end at `ends`.
pub fn encode<'a>(nonce: u128, pieces: impl Iterator<Item = &'a Bytes> + Clone, ends: &[u32]) -> Bytes {
    let length: u64 = pieces.clone().map(|piece| piece.len() as u64).sum();
    let mut out = Writer(Vec::with_capacity(object_bound(length, ends.len())));
    let (mut block_start, mut block) = (0, 0);
    for piece in pieces {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let room = BLOCK as usize - (out.0.len() - block_start);
            let (now, later) = rest.split_at(room.min(rest.len()));
            out.0.extend_from_slice(now);
            rest = later;
            if out.0.len() - block_start == BLOCK as usize {
                block_start = finish_block(&mut out, block_start, nonce, block);
                block += 1;
            }
        }
    }
    if out.0.len() > block_start {
        finish_block(&mut out, block_start, nonce, block);
    }
    let index_start = out.0.len();
    out.rising(ends);
    let index_length = out.0.len() - index_start;
    out.u64(length);
    out.u32(u32::try_from(index_length).unwrap_or(u32::MAX));
    let crc = footer_crc(nonce, &out.0[index_start..]);
    out.u32(crc);
    out.u8(VERSION);
    out.0.extend_from_slice(MAGIC);
    Bytes::from(out.0)
}

fn object_bound(length: u64, messages: usize) -> usize {
    usize::try_from(length + (length / BLOCK + 1) * CRC).unwrap_or(0) + messages * 5 + FOOTER + 10
}

fn finish_block(out: &mut Writer, start: usize, nonce: u128, block: u64) -> usize {
    let crc = block_crc(nonce, block, &out.0[start..]);
    out.u32(crc);
    out.0.len()
}

fn block_crc(nonce: u128, block: u64, data: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&nonce.to_le_bytes());
    crc.update(&block.to_le_bytes());
    crc.update(data);
    crc.finalize()
}

fn footer_crc(nonce: u128, covered: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&nonce.to_le_bytes());
    crc.update(covered);
    crc.finalize()
}

/// The blocks that cover `range` of the data.
pub fn blocks(range: &Range<u64>) -> Range<u64> {
    range.start / BLOCK..range.end.div_ceil(BLOCK)
}

/// Where in the object block `block` of a chunk with `length` bytes of data lies, its checksum included.
pub fn place(block: u64, length: u64) -> Range<u64> {
    let data = (length.saturating_sub(block * BLOCK)).min(BLOCK);
    let start = block * (BLOCK + CRC);
    start..start + data + CRC
}

/// Verifies block `number` of the chunk as it lies in the object, at `place`, and gives its data.
pub fn verify(nonce: u128, number: u64, block: &Bytes, place: &Range<u64>) -> Result<Bytes, Damaged> {
    if block.len() as u64 != place.end - place.start || block.len() < CRC as usize {
        return Err(Damaged::new(format!("bytes {}..{} are cut short", place.start, place.end)));
    }
    let data = block.slice(..block.len() - CRC as usize);
    let mut trailer = Reader::new(block.slice(data.len()..));
    if trailer.u32()? != block_crc(nonce, number, &data) {
        return Err(Damaged::new(format!("the checksum of bytes {}..{} does not match", place.start, place.end)));
    }
    Ok(data)
}

/// A whole chunk, every checksum verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub blocks: Vec<Bytes>,
    pub ends: Vec<u32>,
}

pub fn decode(nonce: u128, object: &Bytes) -> Result<Chunk, Damaged> {
    let footer_at = object.len().checked_sub(FOOTER).ok_or_else(|| Damaged::new("it is too short for a chunk"))?;
    let mut footer = Reader::new(object.slice(footer_at..));
    let (length, index_length, crc, version) = (footer.u64()?, footer.u32()? as usize, footer.u32()?, footer.u8()?);
    if footer.take(4)? != MAGIC[..] {
        return Err(Damaged::new("it is not a chunk"));
    }
    if version != VERSION {
        return Err(Damaged::new(format!("its format version is {version}; this program knows {VERSION}")));
    }
    let index_at = footer_at.checked_sub(index_length).ok_or_else(|| Damaged::new("its index is longer than it is"))?;
    if footer_crc(nonce, &object[index_at..footer_at + 12]) != crc {
        return Err(Damaged::new("the checksum of its index does not match"));
    }
    let data_end = length.checked_add(length.div_ceil(BLOCK) * CRC);
    if data_end != Some(index_at as u64) {
        return Err(Damaged::new("its length is not what its footer says"));
    }
    let ends = Reader::new(object.slice(index_at..footer_at)).rising()?;
    if ends.last().map_or(0, |end| u64::from(*end)) != length {
        return Err(Damaged::new("its messages do not fill its data"));
    }
    let blocks = blocks(&(0..length)).map(|block| {
        let place = place(block, length);
        verify(nonce, block, &object.slice(place.start as usize..place.end as usize), &place)
    });
    Ok(Chunk { blocks: blocks.collect::<Result<_, _>>()?, ends })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn data(length: usize) -> Bytes {
        (0..length).map(|i| (i * 31 % 251) as u8).collect::<Vec<u8>>().into()
    }

    #[test]
    fn chunks_of_awkward_lengths_round_trip() {
        let block = BLOCK as usize;
        for length in [0, 1, block - 1, block, block + 1, 3 * block] {
            let whole = data(length);
            let pieces = [whole.slice(..length / 3), whole.slice(length / 3..)];
            let ends: Vec<u32> = if length > 0 { vec![length as u32] } else { vec![] };
            let object = encode(7, pieces.iter(), &ends);
            let chunk = decode(7, &object).unwrap_or_else(|e| panic!("{length}: {e}"));
            assert_eq!(chunk.blocks.concat(), whole);
            assert_eq!(chunk.ends, ends);
            for block in blocks(&(0..length as u64)) {
                let place = place(block, length as u64);
                let got = verify(7, block, &object.slice(place.start as usize..place.end as usize), &place);
                assert_eq!(got.as_ref().ok(), chunk.blocks.get(block as usize));
            }
        }
    }

    #[test]
    fn a_block_of_another_chunk_or_from_another_place_is_damage() {
        let block = vec![b'x'; BLOCK as usize];
        let data = Bytes::from([&block[..], &block[..], b"end"].concat());
        let (object, ends) = (encode(7, [data.clone()].iter(), &[data.len() as u32]), data.len() as u64);
        let at = |number| {
            let place = place(number, ends);
            (object.slice(place.start as usize..place.end as usize), place)
        };
        let ((first, place), (second, _)) = (at(0), at(1));
        assert!(verify(7, 0, &first, &place).is_ok());
        assert!(verify(8, 0, &first, &place).is_err() && verify(7, 0, &second, &place).is_err());
        assert!(decode(7, &object).is_ok() && decode(8, &object).is_err());
    }

    proptest! {
        #[test]
        fn any_flipped_bit_and_any_cut_is_noticed(length in 0usize..500, at: prop::sample::Index, bit in 0u8..8) {
            let ends: Vec<u32> = if length > 0 { vec![length as u32] } else { vec![] };
            let object = encode(7, [data(length)].iter(), &ends);
            let mut flipped = object.to_vec();
            flipped[at.index(object.len())] ^= 1 << bit;
            prop_assert!(decode(7, &Bytes::from(flipped)).is_err());
            prop_assert!(decode(7, &object.slice(..at.index(object.len()))).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_cause_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(7, &Bytes::from(bytes));
        }
    }
}
