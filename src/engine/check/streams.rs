//! Every stream's folder: its manifest, the chunks that this names, and others.

use std::collections::HashSet;
use std::sync::PoisonError;

use futures::StreamExt;

use super::{Check, FOREIGN, Severity, Shard};
use crate::engine::collect::named_by_all;
use crate::engine::state::{Base, Cells};
use crate::engine::walk::{Folder, Folders, Found};
use crate::engine::{EngineError, REFRESHES, load, read};
use crate::layout::key;
use crate::layout::manifest::Manifest;
use crate::protocol::{Incarnation, StreamName};

/// Streams looked at a time.
const AT_A_TIME: usize = 4;

impl Check<'_> {
    pub(super) async fn folders(&self, shards: &[Shard]) -> Result<(), EngineError> {
        let mut folders = Folders::of(&self.context);
        while let Some(some) = folders.next().await? {
            let mut looks = futures::stream::iter(some)
                .map(|folder| async move { self.folder(folder, shards).await })
                .buffer_unordered(AT_A_TIME);
            while let Some(looked) = looks.next().await {
                looked?;
            }
            for foreign in folders.foreign.drain(..) {
                self.found(Severity::Foreign, foreign, FOREIGN);
            }
        }
        Ok(())
    }

    async fn folder(&self, folder: Folder, shards: &[Shard]) -> Result<(), EngineError> {
        self.count(|checked| checked.streams += 1);
        let mut named = HashSet::new();
        if folder.has_manifest {
            match self.manifest(&folder, shards).await {
                Ok(of_manifest) => named = of_manifest,
                // Its chunks can't be judged without it.
                Err(error) => return self.damage(error),
            }
        }
        let is_suspect = |chunk: &Found| !named.contains(&chunk.id()) && self.is_old(chunk.modified);
        let suspects: Vec<Found> = folder.chunks.iter().filter(|chunk| is_suspect(chunk)).cloned().collect();
        if !suspects.is_empty() {
            let folder = Folder { chunks: suspects, ..folder };
            self.suspects.lock().unwrap_or_else(PoisonError::into_inner).push(folder);
        }
        Ok(())
    }

    /// Checks the folder's manifest and what it names, again and again for as long as it is replaced meanwhile. Returns
    /// what it names.
    async fn manifest(&self, folder: &Folder, shards: &[Shard]) -> Result<HashSet<(u64, u128)>, EngineError> {
        let mut looked = 0;
        loop {
            let (name, base) = self.read(folder).await?;
            let Some(manifest) = &base.manifest else { return Ok(HashSet::new()) };
            self.reaches(&name, manifest, shards).await?;
            let wrong = self.wrong_chunks(&name, manifest).await?;
            if wrong.is_empty() {
                return Ok(manifest.own_chunks().collect());
            }
            looked += 1;
            if looked > REFRESHES || load::read_manifest(&self.context, &name).await?.version == base.version {
                wrong.into_iter().for_each(|(key, what)| self.found(Severity::Damage, key, what));
                return Ok(manifest.own_chunks().collect());
            }
        }
    }

    async fn read(&self, folder: &Folder) -> Result<(StreamName, Base), EngineError> {
        if let Some(found) = load::manifest_in(&self.context, &folder.name).await? {
            return Ok(found);
        }
        let missing = || EngineError::Damaged { key: key::manifest_in(&folder.name), what: "it is missing".to_owned() };
        let name = key::name_of(&folder.name).ok_or_else(missing)?;
        Ok((name, Base { manifest: None, version: None }))
    }

    /// Whether the log got as far as the manifest says.
    async fn reaches(&self, name: &StreamName, manifest: &Manifest, shards: &[Shard]) -> Result<(), EngineError> {
        let (number, position) = (self.shard_of(name), manifest.log_position);
        let Some(head) = shards[number as usize].head else { return Ok(()) };
        // Unless the log went on since it was read, and perhaps was cut.
        let went_on = position < head
            || !self.is_absent(number, head).await?
            || position <= load::read_checkpoint(&self.context, number).await?.position();
        if !went_on {
            let what = format!("it is missing: the manifest of stream {name} knows the log up to {position}");
            self.found(Severity::Damage, key::log(number, head), what);
        }
        Ok(())
    }

    async fn wrong_chunks(&self, name: &StreamName, manifest: &Manifest) -> Result<Vec<(String, String)>, EngineError> {
        let incarnation = manifest.stream.as_ref().and_then(|facts| Incarnation::new(facts.incarnation));
        let Some(incarnation) = incarnation else { return Ok(Vec::new()) };
        let mut wrong = Vec::new();
        for named in manifest.named() {
            let key = read::chunk_key(name, incarnation, named.nonce, named.foreign.as_ref())?;
            if let Some(what) = self.chunk(&key, named.nonce, named.len, Some(named)).await? {
                wrong.push((key, what));
            }
        }
        Ok(wrong)
    }

    /// Old chunks that no manifest named: garbage, unless the log names them, or a manifest does by now.
    pub(super) async fn look_at_suspects_again(&self) -> Result<(), EngineError> {
        let suspects = std::mem::take(&mut *self.suspects.lock().unwrap_or_else(PoisonError::into_inner));
        if suspects.is_empty() {
            return Ok(());
        }
        let mut named = HashSet::new();
        for number in 0..self.context.shards {
            let cells = Cells::new(self.context.settings.manifest_cache);
            if load::load(&self.context, number, &cells).await.is_err() {
                // It was told of. What its log names is not known, so nothing can be called garbage.
                return Ok(());
            }
            named.extend(cells.unsealed().iter().flat_map(|(_, cell)| named_by_all(&cell.lock())));
        }
        for mut folder in suspects {
            if let Ok(Some((_, Base { manifest: Some(manifest), .. }))) =
                load::manifest_in(&self.context, &folder.name).await
            {
                named.extend(manifest.own_chunks());
                folder.has_manifest = true;
            }
            let is_named = |chunk: &Found| named.contains(&chunk.id());
            if !folder.has_manifest && folder.is_of_a_stream() && !folder.chunks.iter().any(is_named) {
                let what = format!("it is missing: there are {} chunks of its stream", folder.chunks.len());
                self.found(Severity::Damage, key::manifest_in(&folder.name), what);
                continue;
            }
            for Found { key, incarnation, nonce, size, .. } in folder.chunks {
                let is_there = self.context.store.get_range(&key, 0..1).await?.value.is_some();
                if is_there && !named.contains(&(incarnation, nonce)) {
                    self.found(Severity::Garbage, key, format!("nothing names it; it has {size} bytes"));
                }
            }
        }
        Ok(())
    }
}
