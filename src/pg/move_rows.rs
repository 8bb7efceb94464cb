//! Rows that a query returns, handed one by one to a statement that inserts them.

use pgrx::pg_sys;

use super::server_text;
use super::tuple_id::TupleId;
use crate::error::{Error, Result, SqlState};

/// Where a row came from.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// The relation: the query's first column.
    pub relation: pg_sys::Oid,
    /// The row's place there: the query's second column.
    pub place: TupleId,
}

/// What the statement did with a row.
#[derive(Debug, Clone, Copy)]
pub struct Put {
    /// How many rows it changed.
    pub rows: u64,
    /// What it returned, if it returns a boolean; else true.
    pub as_wanted: bool,
}

/// Runs `insert` for each row of `query`, whose columns from the third on, of these types, are its parameters; `moved` is told where
/// each row came from and what the statement then did.
///
/// All of it is one statement to triggers and constraints: AFTER triggers run at the end, so rows may reference each other.
/// One row is in memory at a time.
pub fn move_rows(
    query: &str,
    insert: &str,
    types: &[pg_sys::Oid],
    mut moved: impl FnMut(Origin, Put) -> Result<()>,
) -> Result<()> {
    let (query, insert) = (server_text::statement(query)?, server_text::statement(insert)?);
    let mut types = types.to_vec();
    // SAFETY: SPI is connected for the call, and what is fetched is freed after it was used. An error unwinds; the abort of
    // the transaction closes SPI, the portal and the triggers' queue.
    unsafe {
        pg_sys::SPI_connect();
        let select = prepared(pg_sys::SPI_prepare(query.as_ptr(), 0, std::ptr::null_mut()))?;
        let insert = prepared(pg_sys::SPI_prepare(insert.as_ptr(), types.len() as i32, types.as_mut_ptr()))?;
        let none = std::ptr::null_mut();
        let portal = pg_sys::SPI_cursor_open(std::ptr::null(), select, none, std::ptr::null(), false);
        pg_sys::AfterTriggerBeginQuery();
        loop {
            pg_sys::SPI_cursor_fetch(portal, true, 1);
            let table = pg_sys::SPI_tuptable;
            if pg_sys::SPI_processed == 0 {
                pg_sys::SPI_freetuptable(table);
                break;
            }
            let origin = move_one(insert, *(*table).vals, (*table).tupdesc, types.len())?;
            moved(origin, put())?;
            pg_sys::SPI_freetuptable(table);
        }
        pg_sys::AfterTriggerEndQuery(std::ptr::null_mut());
        pg_sys::SPI_cursor_close(portal);
        pg_sys::SPI_finish();
    }
    Ok(())
}

/// Runs the statement with the columns of one row.
///
/// # Safety
/// `tuple` is one of `descriptor`, whose columns from the third on are the statement's parameters; SPI is connected.
unsafe fn move_one(
    insert: pg_sys::SPIPlanPtr,
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
    parameters: usize,
) -> Result<Origin> {
    const BEFORE: usize = 2;
    let mut values = vec![pg_sys::Datum::null(); BEFORE + parameters];
    let mut nulls = vec![true; BEFORE + parameters];
    // SAFETY: by the caller's promise; the arrays have one entry for each column of the row.
    unsafe {
        pg_sys::heap_deform_tuple(tuple, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
        let relation = pg_sys::Oid::from(values[0].value() as u32);
        let place = TupleId::of(*values[1].cast_mut_ptr::<pg_sys::ItemPointerData>());
        let flags: Vec<_> = nulls[BEFORE..].iter().map(|null| if *null { b'n' } else { b' ' }.cast_signed()).collect();
        let code = pg_sys::SPI_execute_snapshot(
            insert,
            values[BEFORE..].as_mut_ptr(),
            flags.as_ptr(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            false,
            false,
            0,
        );
        if code < 0 { Err(unusable(code)) } else { Ok(Origin { relation, place }) }
    }
}

/// What the statement did that SPI ran last; frees what it returned.
///
/// # Safety
/// SPI is connected, and its last statement has run.
unsafe fn put() -> Put {
    // SAFETY: a table that SPI returned has the rows it counted.
    unsafe {
        let (rows, returned) = (pg_sys::SPI_processed, pg_sys::SPI_tuptable);
        let mut as_wanted = true;
        if !returned.is_null() {
            if rows > 0 {
                let mut is_null = false;
                let value = pg_sys::SPI_getbinval(*(*returned).vals, (*returned).tupdesc, 1, &mut is_null);
                as_wanted = !is_null && value.value() != 0;
            }
            pg_sys::SPI_freetuptable(returned);
        }
        Put { rows, as_wanted }
    }
}

fn prepared(plan: pg_sys::SPIPlanPtr) -> Result<pg_sys::SPIPlanPtr> {
    // SAFETY: a plain variable of this backend.
    if plan.is_null() { Err(unusable(unsafe { pg_sys::SPI_result })) } else { Ok(plan) }
}

fn unusable(code: i32) -> Error {
    Error::new(SqlState::ERRCODE_INTERNAL_ERROR, format!("archived rows cannot be moved: SPI error {code}"))
}
