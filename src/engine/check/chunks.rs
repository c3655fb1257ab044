//! One chunk.

use super::Check;
use crate::engine::EngineError;
use crate::layout::chunk;
use crate::layout::manifest::ChunkRef;
use crate::protocol::page;

impl Check<'_> {
    /// What is wrong with the chunk at `key`, that has `len` bytes of data; `named` is what a manifest says of it.
    pub(super) async fn chunk(
        &self,
        key: &str,
        nonce: u128,
        len: u64,
        named: Option<&ChunkRef>,
    ) -> Result<Option<String>, EngineError> {
        self.count(|checked| checked.chunks += 1);
        if self.quick {
            return self.last_bytes(key, len).await;
        }
        let Some(object) = self.context.store.get(key).await?.value else { return Ok(Some(MISSING.to_owned())) };
        self.count(|checked| checked.bytes += object.body.len() as u64);
        let whole = match chunk::decode(nonce, &object.body) {
            Ok(whole) => whole,
            Err(error) => return Ok(Some(error.0)),
        };
        let found: u64 = whole.blocks.iter().map(|block| block.len() as u64).sum();
        let whole_len = named.map_or(len, ChunkRef::whole);
        if found != whole_len {
            return Ok(Some(format!("it has {found} bytes, not {whole_len}")));
        }
        let Some(named) = named.filter(|named| named.foreign.is_none()) else { return Ok(None) };
        let ends = page::ends_in(named.start, &whole.ends, self.context.page_bytes);
        let is_right = ChunkRef::overshoots(named.start, &ends, self.context.page_bytes) == named.overshoots;
        Ok((!is_right).then(|| "its messages do not end where the manifest says that pages do".to_owned()))
    }

    /// Whether it is there and has all its data: one small GET.
    async fn last_bytes(&self, key: &str, len: u64) -> Result<Option<String>, EngineError> {
        let Some(last) = chunk::blocks(&(0..len)).last() else { return Ok(None) };
        let end = chunk::place(last, len).end;
        let bytes = self.context.store.get_range(key, end.saturating_sub(1)..end).await?.value;
        Ok(match bytes {
            None => Some(MISSING.to_owned()),
            Some(bytes) if bytes.is_empty() => Some(format!("it is too short for {len} bytes")),
            Some(_) => None,
        })
    }
}

const MISSING: &str = "it is missing";
