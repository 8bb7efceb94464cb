//! Bulk insertion into a table created in the same transaction, with frozen tuples.

use pgrx::pg_sys;

use super::arena::Arena;
use super::foreign_scan::store_virtual;
use super::memory::MemoryContext;
use super::relation::Relation;
use super::row::RowBuffer;
use super::server_text;
use super::tuple_id::TupleId;
use crate::error::{Error, Result, SqlState};

/// Rows handed to the table access method at once.
const BATCH_ROWS: usize = 512;

/// Inserts rows in batches. Rows are frozen: an older snapshot must see them, as it saw them before the archive.
#[derive(Debug)]
pub struct BulkLoader<'a> {
    relation: &'a Relation,
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    used: usize,
    state: pg_sys::BulkInsertState,
    memory: MemoryContext,
    arena: Arena,
    options: i32,
    rows: u64,
    segments: Vec<Option<TupleId>>,
}

impl<'a> BulkLoader<'a> {
    /// Begins loading `relation`, which this transaction created and nobody else can see.
    pub fn begin(relation: &'a Relation) -> Self {
        // SAFETY: the state is freed in finish, or with the transaction's memory on error.
        let state = unsafe { pg_sys::GetBulkInsertState() };
        let options = (pg_sys::TABLE_INSERT_FROZEN | pg_sys::TABLE_INSERT_SKIP_FSM) as i32;
        let memory = MemoryContext::new(c"archive_ext load");
        Self {
            relation,
            slots: Vec::with_capacity(BATCH_ROWS),
            used: 0,
            state,
            memory,
            arena: Arena::default(),
            options,
            rows: 0,
            segments: Vec::new(),
        }
    }

    /// Begins a segment, whose first row's place is told by [`Self::finish`].
    pub fn begin_segment(&mut self) {
        if self.used > 0 {
            self.flush();
        }
        self.segments.push(None);
    }

    /// Adds one row: `fill` builds it in memory that lives until the batch is written.
    pub fn add(
        &mut self,
        row: &mut RowBuffer,
        fill: impl FnOnce(&mut RowBuffer, &mut Arena) -> Result<()>,
    ) -> Result<()> {
        let arena = &mut self.arena;
        self.memory.within(|| fill(row, arena))?;
        let slot = self.next_slot();
        let (values, nulls) = row.parts();
        // SAFETY: the slot is empty; it has as many entries as the relation has attributes, and so has the row.
        unsafe {
            std::ptr::copy_nonoverlapping(values.as_ptr(), (*slot).tts_values, values.len());
            std::ptr::copy_nonoverlapping(nulls.as_ptr(), (*slot).tts_isnull, nulls.len());
            store_virtual(slot);
        }
        if self.used == BATCH_ROWS || self.memory.bytes() > 4 << 20 || self.arena.bytes() > 4 << 20 {
            self.flush();
        }
        Ok(())
    }

    /// Writes the rest and ends the load; the number of rows, and where the first row of each segment is.
    pub fn finish(mut self) -> (u64, Vec<Option<TupleId>>) {
        self.flush();
        // SAFETY: all were created by this loader and are released once.
        unsafe {
            for slot in &self.slots {
                pg_sys::ExecDropSingleTupleTableSlot(*slot);
            }
            pg_sys::FreeBulkInsertState(self.state);
            pg_sys::table_finish_bulk_insert(self.relation.as_ptr(), self.options);
        }
        (self.rows, self.segments)
    }

    /// Loads what a query returns into `relation`, which this transaction created and nobody else can see: its columns go
    /// to the attributes at these indexes (from 0). The number of rows.
    pub fn load_query(relation: &'a Relation, sql: &str, attributes: &[usize]) -> Result<u64> {
        let sql = server_text::statement(sql)?;
        let mut buffer = RowBuffer::new(relation.attribute_count());
        // SAFETY: SPI is connected for the call, the loader begins and ends within. A row is copied into the loader's
        // memory before the table that SPI fetched it into is freed. An error unwinds, and the abort closes SPI.
        unsafe {
            pg_sys::SPI_connect();
            let mut loader = Self::begin(relation);
            let plan = pg_sys::SPI_prepare(sql.as_ptr(), 0, std::ptr::null_mut());
            if plan.is_null() {
                return Err(unreadable(pg_sys::SPI_result));
            }
            let portal = pg_sys::SPI_cursor_open(std::ptr::null(), plan, std::ptr::null_mut(), std::ptr::null(), false);
            loop {
                pg_sys::SPI_cursor_fetch(portal, true, BATCH_ROWS as _);
                let (table, fetched) = (pg_sys::SPI_tuptable, pg_sys::SPI_processed as usize);
                for at in 0..fetched {
                    let tuple = *(*table).vals.add(at);
                    loader.add(&mut buffer, |buffer, _| {
                        fill(buffer, tuple, (*table).tupdesc, attributes);
                        Ok(())
                    })?;
                }
                pg_sys::SPI_freetuptable(table);
                if fetched == 0 {
                    break;
                }
            }
            pg_sys::SPI_cursor_close(portal);
            let (rows, _) = loader.finish();
            pg_sys::SPI_finish();
            Ok(rows)
        }
    }

    fn next_slot(&mut self) -> *mut pg_sys::TupleTableSlot {
        if self.used == self.slots.len() {
            // SAFETY: a slot of the relation's row type.
            self.slots.push(unsafe { pg_sys::table_slot_create(self.relation.as_ptr(), std::ptr::null_mut()) });
        }
        self.used += 1;
        self.slots[self.used - 1]
    }

    fn flush(&mut self) {
        super::interrupts::check();
        // SAFETY: `used` slots hold virtual tuples whose datums live in `memory`; the insert copies them.
        self.memory.within(|| unsafe {
            pg_sys::table_multi_insert(
                self.relation.as_ptr(),
                self.slots.as_mut_ptr(),
                self.used as i32,
                pg_sys::GetCurrentCommandId(true),
                self.options,
                self.state,
            );
        });
        if let (Some(segment @ None), true, Some(slot)) = (self.segments.last_mut(), self.used > 0, self.slots.first())
        {
            // SAFETY: the insert set the place of each row in its slot.
            *segment = Some(TupleId::of(unsafe { (**slot).tts_tid }));
        }
        let used = self.slots.get(..self.used).unwrap_or_default();
        // SAFETY: the slots are live; clearing forgets pointers into memory that is reset next. One guard serves for all of them.
        unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                for slot in used {
                    if let Some(clear) = (*(**slot).tts_ops).clear {
                        clear(*slot);
                    }
                }
            });
        }
        self.rows += self.used as u64;
        self.used = 0;
        self.memory.reset();
        self.arena.reset();
    }
}

fn unreadable(code: i32) -> Error {
    Error::new(SqlState::ERRCODE_INTERNAL_ERROR, format!("the rows to load cannot be read: SPI error {code}"))
}

/// Copies a tuple into the current memory and its columns into `buffer`.
///
/// # Safety
///
/// `tuple` is one of `descriptor`, and the current memory lives as long as what `buffer` points to is used.
unsafe fn fill(buffer: &mut RowBuffer, tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc, attributes: &[usize]) {
    let mut values = vec![pg_sys::Datum::null(); attributes.len()];
    let mut nulls = vec![true; attributes.len()];
    // SAFETY: by the caller's promise; the query has one column for each attribute.
    unsafe {
        let copy = pg_sys::heap_copytuple(tuple);
        pg_sys::heap_deform_tuple(copy, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
    }
    for ((attribute, value), null) in attributes.iter().zip(values).zip(nulls) {
        buffer.set(*attribute, (!null).then_some(value));
    }
}
