//! Rows as they were archived, whatever columns the table has now: written to other objects, and read back.

use std::cell::Cell;

use archive_core::codec::{DecodedBatch, ObjectFormat, RowHasher, sha256_of, sha256_of_bytes};
use archive_core::manifest::ManifestObject;
use archive_core::naming::{self, BatchName};
use archive_core::store::BlockingStore;
use pgrx::Uuid;

use super::read;
use crate::catalog::partition::{self, ArchivedPartition};
use crate::engine::plan::job_hex;
use crate::error::{Error, Result, SqlState};
use crate::export::{self, ArchivedWriter, ExportSource, Exported, Objects};
use crate::partition::discover::Leaf;
use crate::pg::guc::GucNest;
use crate::pg::relation::{LockMode, Relation};
use crate::pg::row::RowBuffer;
use crate::shape::Archived;

/// What becomes of a row.
pub(super) enum Fate {
    /// It is written again.
    Keep,
    /// It leaves the archive.
    Take,
}

/// The rows of a row set or partition in the columns of their time, and where they go.
pub(super) struct ArchivedRows<'a> {
    pub(super) source: ExportSource,
    /// Fields of the key, whose values the objects' key filters hold.
    pub(super) filter_fields: Vec<i32>,
    pub(super) store: &'a BlockingStore,
    pub(super) names: Names<'a>,
}

/// How new objects are called.
pub(super) enum Names<'a> {
    /// As batches of rows.
    Batch {
        /// Name of the table.
        table: &'a str,
        /// The job, and its step.
        of: (Uuid, u32),
        /// Keeps the names of objects apart that several attempts of a step write.
        attempt: Uuid,
    },
    /// As a version of a partition.
    Version {
        /// Name of the partition.
        partition: &'a str,
        /// Its version.
        version: u32,
        /// Number of the next object.
        next: Cell<u32>,
    },
}

impl Names<'_> {
    pub(super) fn key(&self, beside: &str, ordinal: u32, format: ObjectFormat) -> String {
        match self {
            Self::Batch { table, of: (id, number), attempt } => {
                let sha256 = sha256_of_bytes(format!("{attempt} {beside} {ordinal}").as_bytes());
                let name = BatchName { job: &job_hex(*id), number: *number, sha256: &sha256 };
                naming::batch_key_beside(beside, table, name, format)
            }
            Self::Version { partition, version, next } => {
                let number = next.replace(next.get() + 1);
                naming::data_key_beside(beside, partition, *version, number)
            }
        }
    }
}

/// Objects are written again in the format that the last of them has: what was wanted when they were archived.
pub(super) fn newest_format(last: Option<&ManifestObject>) -> Result<ObjectFormat> {
    Ok(last.map(ManifestObject::recorded).transpose()?.map(|recorded| recorded.format).unwrap_or_default())
}

/// How the rows of row set or partition `set` were archived. Errors: 0A000 for a column whose type does not exist any more.
pub(super) fn shape(table: &Leaf, set: i64) -> Result<ExportSource> {
    let gone = || Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, "the archive was dropped meanwhile");
    let archived = partition::archived(set)?.ok_or_else(gone)?;
    let relation = Relation::open(table.oid, LockMode::AccessShare).ok_or_else(gone)?;
    let columns = {
        let _path = GucNest::new().safe_search_path();
        let ArchivedPartition { name, schema, map, archived_at, .. } = &archived;
        Archived { name, schema, map, archived_at: *archived_at }.columns()?
    };
    let key_fields = ExportSource::peek(table.oid, table.oid)?.key_fields;
    Ok(ExportSource::archived(relation, archived.schema, columns, key_fields))
}

impl ArchivedRows<'_> {
    /// Writes the rows of `objects` that are kept to objects beside the first; these, and the hasher of the rows taken.
    pub(super) fn write(
        &self,
        objects: &[&ManifestObject],
        fate: &mut dyn FnMut() -> Fate,
    ) -> Result<(Exported, RowHasher)> {
        let beside = objects.first().map_or("", |object| object.key.as_str());
        let format = newest_format(objects.last().copied())?;
        let key = |ordinal: u32| self.names.key(beside, ordinal, format);
        let _text = GucNest::lossless_text();
        let written_as = Objects { filter_fields: self.filter_fields.clone(), format };
        let mut writer = ArchivedWriter::new(&self.source, written_as, self.store, &key)?;
        let mut taken = RowHasher::new(&self.source.schema);
        for object in objects {
            self.rows(object, &mut |batch, at, row| match fate() {
                Fate::Keep => writer.row(batch, at, &row.row()),
                Fate::Take => export::hash_archived(&self.source, &mut taken, batch, at, &row.row()),
            })?;
        }
        Ok((writer.finish()?, taken))
    }

    fn rows(
        &self,
        object: &ManifestObject,
        visit: &mut dyn FnMut(&DecodedBatch, usize, &RowBuffer) -> Result<()>,
    ) -> Result<()> {
        read::rows(&self.source, self.store, &self.source.schema, object, visit)
    }

    /// Reads an object that was written, through fresh requests (P2; XX001).
    pub(super) fn read_back(&self, object: &ManifestObject) -> Result<()> {
        let mut hasher = RowHasher::new(&self.source.schema);
        self.rows(object, &mut |batch, at, row| {
            export::hash_archived(&self.source, &mut hasher, batch, at, &row.row())
        })?;
        let sha256 = sha256_of(&mut self.store.reader(&object.key, object.bytes))?;
        if hasher.digest() == object.digest && sha256 == object.sha256 {
            return Ok(());
        }
        let message = format!("archive object \"{}\" failed verification", object.key);
        Err(Error::new(SqlState::ERRCODE_DATA_CORRUPTED, message)
            .detail("What is read back is not what was written.")
            .hint("Nothing was changed. Check the storage, then run it again."))
    }
}
