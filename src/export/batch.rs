//! Rows that were chosen one by one, packed into objects in memory: their names hold the hash of their content.

use archive_core::codec::{Digest, KeyFilter, ObjectSink};
use archive_core::manifest::ManifestObject;
use bytes::{Bytes, BytesMut};

use super::{Export, ExportSource, Objects, Tick};
use crate::error::{Error, Result, SqlState};
use crate::pg::guc::GucNest;
use crate::pg::relation::Relation;
use crate::pg::snapshot::LatestSnapshot;
use crate::pg::tuple_fetch::TupleFetch;
use crate::pg::tuple_id::TupleId;

/// Rows packed into objects that are not in the storage yet.
#[derive(Debug)]
pub struct Packed {
    /// The objects, named, with their bytes.
    pub objects: Vec<(ManifestObject, Bytes)>,
    /// The key filter of each, where it has one.
    pub filters: Vec<Option<KeyFilter>>,
    /// Digest of every row, taken from the datums.
    pub digest: Digest,
    /// How many of the rows they hold: fewer than were given when the byte limit was reached.
    pub rows: usize,
}

/// Packs `rows`, each in one of `relations`, in this order, into objects named by `key` from their SHA-256. It ends after the row with
/// which the objects reach `byte_limit`. The rows are locked by this transaction.
pub fn pack(
    source: &ExportSource,
    relations: &[Relation],
    rows: &[(usize, TupleId)],
    objects: Objects,
    byte_limit: u64,
    key: impl Fn(&str) -> String,
    tick: Tick<'_>,
) -> Result<Packed> {
    source.as_owner(|| pack_as_owner(source, relations, rows, objects, byte_limit, &key, tick))
}

fn pack_as_owner(
    source: &ExportSource,
    relations: &[Relation],
    rows: &[(usize, TupleId)],
    objects: Objects,
    byte_limit: u64,
    key: &dyn Fn(&str) -> String,
    tick: Tick<'_>,
) -> Result<Packed> {
    let snapshot = LatestSnapshot::take();
    let _text = GucNest::lossless_text();
    let mut export = Export::new(source, objects, MemorySink::default())?;
    let mut fetches: Vec<_> =
        relations.iter().map(|relation| TupleFetch::begin(relation, &source.relation, &snapshot)).collect();
    let mut packed = 0;
    for (relation, place) in rows {
        let fetch = fetches.get_mut(*relation).ok_or_else(vanished)?;
        fetch.row(*place, |row| export.row(&row)).ok_or_else(vanished)??;
        packed += 1;
        if export.writer.is_full() {
            fetch.release_row();
            export.flush()?;
        }
        export.tick(tick);
        if export.writer.bytes_appended() >= byte_limit {
            break;
        }
    }
    let (mut summaries, ranges, sink, digest) = export.into_parts()?;
    let filters = summaries.iter_mut().map(|summary| summary.key_filter.take()).collect();
    let objects = summaries.iter().zip(sink.objects).map(|(summary, bytes)| {
        let ranges = ranges.get(summary.ordinal as usize).cloned().unwrap_or_default();
        (ManifestObject::new(key(&summary.sha256), summary, ranges), bytes)
    });
    Ok(Packed { objects: objects.collect(), filters, digest, rows: packed })
}

fn vanished() -> Error {
    Error::new(SqlState::ERRCODE_INTERNAL_ERROR, "a row that this transaction has locked is not there")
}

/// Keeps objects in memory.
#[derive(Debug, Default)]
struct MemorySink {
    objects: Vec<Bytes>,
    current: BytesMut,
}

impl ObjectSink for MemorySink {
    fn begin(&mut self, _: u32) -> archive_core::Result<()> {
        Ok(())
    }

    fn write(&mut self, bytes: Bytes) -> archive_core::Result<()> {
        self.current.extend_from_slice(&bytes);
        Ok(())
    }

    fn finish(&mut self) -> archive_core::Result<()> {
        self.objects.push(std::mem::take(&mut self.current).freeze());
        Ok(())
    }
}
