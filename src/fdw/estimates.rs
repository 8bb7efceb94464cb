//! What planning knows of archives it has seen, so that a plan of a few of thousands of partitions asks the catalog for none of them.
//! For estimates only: the executor reads the catalog each time.
//!
//! An archive is known until its row in the catalog or its foreign table changes.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use pgrx::pg_sys;

use super::archive::Archive;
use crate::catalog::object::ArchivedObject;
use crate::catalog::{key_filter, partition};
use crate::error::Result;
use crate::pg::relcache;
use crate::pg::row_version::RowVersion;
use crate::pg::snapshot::LatestSnapshot;
use crate::pg::xact;

/// Bytes of archives that a session remembers, about.
const KEPT_BYTES: usize = 16 << 20;

/// An archive as planning knows it.
#[derive(Debug)]
pub(super) struct KnownArchive {
    archive: Archive,
    /// Each column is read as it was archived: no cast, no expression of the table's is evaluated for it.
    is_plain: bool,
    version: Option<RowVersion>,
    objects: RefCell<HashMap<Vec<i32>, Rc<[ArchivedObject]>>>,
    newest_filter: OnceCell<Option<(Vec<i32>, u64)>>,
}

#[derive(Default)]
struct Memory {
    generation: u64,
    archives: HashMap<pg_sys::Oid, Rc<KnownArchive>>,
    bytes: usize,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

impl Memory {
    /// Makes room for more; what is in use stays with those who use it.
    fn add(&mut self, bytes: usize) {
        if self.bytes + bytes > KEPT_BYTES {
            self.archives.clear();
            self.bytes = 0;
        }
        self.bytes += bytes;
    }
}

impl KnownArchive {
    /// What is known of the partition that foreign table `table` stands for, after a look whether that is still so. Errors: as
    /// [`Archive::of`].
    pub(super) fn of(table: pg_sys::Oid) -> Result<Rc<Self>> {
        let generation = relcache::generation();
        let known = MEMORY.with_borrow_mut(|memory| {
            if memory.generation != generation {
                *memory = Memory { generation, ..Memory::default() };
            }
            memory.archives.get(&table).cloned()
        });
        if let Some(known) = known.filter(|known| known.is_current()) {
            return Ok(known);
        }
        relcache::watch(table);
        // Looked at before the archive and its objects are read: these may be newer than it, never older.
        let version = partition::row_version(Archive::id_of(table)?);
        let archive = Archive::of(table)?;
        let known = Rc::new(Self {
            is_plain: archive.columns.iter().all(|column| archive.is_read_as_archived(column)),
            archive,
            version,
            objects: RefCell::default(),
            newest_filter: OnceCell::new(),
        });
        // A row set's objects are those of the snapshot, which is an old one in such a transaction.
        if known.archive.partition.row_set && xact::keeps_one_snapshot() {
            return Ok(known);
        }
        let bytes = known.archive.columns.len() * 500 + 1000;
        MEMORY.with_borrow_mut(|memory| {
            if memory.generation == relcache::generation() {
                memory.add(bytes);
                memory.archives.insert(table, Rc::clone(&known));
            }
        });
        Ok(known)
    }

    fn is_current(&self) -> bool {
        self.version.is_some() && self.version == partition::row_version(self.archive.partition.id)
    }

    /// The archive.
    pub(super) fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Whether processes may share a scan: casts and generated columns run functions that may not run in parallel.
    pub(super) fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// The latest snapshot, for what else would be read by the query's, which may be older than [`Self::version`].
    fn latest(&self) -> Option<LatestSnapshot> {
        (self.archive.partition.row_set && xact::may_take_snapshots()).then(LatestSnapshot::take)
    }

    /// [`Archive::objects`].
    pub(super) fn objects(&self, fields: Vec<i32>) -> Result<Rc<[ArchivedObject]>> {
        if let Some(known) = self.objects.borrow().get(&fields) {
            return Ok(Rc::clone(known));
        }
        let _latest = self.latest();
        let objects: Rc<[_]> = self.archive.objects(&fields)?.into();
        MEMORY.with_borrow_mut(|memory| memory.add(objects.len() * (300 + fields.len() * 200)));
        self.objects.borrow_mut().insert(fields, Rc::clone(&objects));
        Ok(objects)
    }

    /// [`key_filter::newest`].
    pub(super) fn newest_filter(&self) -> Result<Option<&(Vec<i32>, u64)>> {
        if self.newest_filter.get().is_none() {
            let _latest = self.latest();
            let partition = &self.archive.partition;
            // What another look found meanwhile is as good.
            let _ = self.newest_filter.set(key_filter::newest(partition.id, partition.version)?);
        }
        Ok(self.newest_filter.get().and_then(Option::as_ref))
    }
}
