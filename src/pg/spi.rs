//! Queries through SPI with typed rows.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CStr;

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::{SpiClient, SpiHeapTupleData, SpiTupleTable};

use super::kept_plans;
use super::server_text::{self, Column};
use super::snapshot::LatestSnapshot;
use super::xact;
use crate::error::{Error, Result, SqlState};

/// One row of a result.
pub struct Row<'conn>(SpiHeapTupleData<'conn>);

impl Row<'_> {
    /// Column `ordinal` (from 1); `None` for NULL.
    pub fn get<T: Column>(&self, ordinal: usize) -> Result<Option<T>> {
        Ok(self.0.get::<T::Raw>(ordinal)?.map(T::from_raw))
    }

    /// Column `ordinal` (from 1), which is never NULL.
    pub fn need<T: Column>(&self, ordinal: usize) -> Result<T> {
        self.get(ordinal)?.ok_or_else(|| {
            Error::new(SqlState::ERRCODE_INTERNAL_ERROR, format!("catalog query returned NULL in column {ordinal}"))
        })
    }
}

/// Runs a query and maps each row.
///
/// A SELECT in a transaction that has changed nothing yet leaves it without a transaction id: a hot standby has none to
/// give, and reading an archive should not use them up. Where nothing may be written, other queries read as well. It sees what is committed now, as a query that writes would.
pub fn rows<'a, T>(sql: &str, args: &[DatumWithOid<'a>], map: impl Fn(&Row<'_>) -> Result<T>) -> Result<Vec<T>> {
    let statement = server_text::statement(sql)?;
    let converted = server_text::arguments(args)?;
    let args = converted.as_deref().unwrap_or(args);
    if xact::is_parallel() {
        return rows_in_parallel(&statement, args, map);
    }
    if !xact::has_id() && (is_select(sql) || xact::is_read_only()) {
        let _snapshot = xact::may_take_snapshots().then(LatestSnapshot::take);
        return Spi::connect(|client| {
            let table = match kept_plans::find(sql, args, false, |types| client.prepare(&statement, types))? {
                Some(plan) => client.select(&**plan, None, args)?,
                None => client.select(&statement, None, args)?,
            };
            table.into_iter().map(|tuple| map(&Row(tuple))).collect()
        });
    }
    update(sql, &statement, args, map)
}

/// The same while parallel workers run, or in one: nothing may be written, and no command begun, which SPI does even for a SELECT unless
/// it is told that all is read-only.
fn rows_in_parallel<'a, T>(
    statement: &CStr,
    args: &[DatumWithOid<'a>],
    map: impl Fn(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut types: Vec<_> = args.iter().map(DatumWithOid::oid).collect();
    let values = args.iter().map(|arg| arg.datum().map(|datum| datum.sans_lifetime()));
    let (mut values, nulls): (Vec<_>, Vec<_>) = values
        .map(|value| {
            (value.unwrap_or(pg_sys::Datum::null()), if value.is_some() { b' ' } else { b'n' } as std::ffi::c_char)
        })
        .unzip();
    Spi::connect(|_| {
        // SAFETY: SPI is connected; one type, value and flag for each argument. The rows are those of the query, and live until SPI is
        // closed.
        unsafe {
            let code = pg_sys::SPI_execute_with_args(
                statement.as_ptr(),
                args.len() as i32,
                types.as_mut_ptr(),
                values.as_mut_ptr(),
                nulls.as_ptr(),
                true,
                0,
            );
            if code != pg_sys::SPI_OK_SELECT as i32 {
                let message = format!("a query of the catalog returned no rows: SPI code {code}");
                return Err(Error::new(SqlState::ERRCODE_INTERNAL_ERROR, message));
            }
            let table = &*pg_sys::SPI_tuptable;
            let tuples = std::slice::from_raw_parts(table.vals, table.numvals as usize);
            let row = |tuple: &pg_sys::HeapTuple| SpiHeapTupleData::new(table.tupdesc, *tuple);
            tuples.iter().filter_map(|tuple| row(tuple).transpose()).map(|tuple| map(&Row(tuple?))).collect()
        }
    })
}

/// Runs a query that writes or locks rows, whatever it begins with, and maps each row.
pub fn writing_rows<'a, T>(
    sql: &str,
    args: &[DatumWithOid<'a>],
    map: impl Fn(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let converted = server_text::arguments(args)?;
    update(sql, &server_text::statement(sql)?, converted.as_deref().unwrap_or(args), map)
}

fn update<'a, T>(
    sql: &str,
    statement: &CStr,
    args: &[DatumWithOid<'a>],
    map: impl Fn(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    Spi::connect_mut(|client| {
        let table = run(client, sql, statement, args)?;
        table.into_iter().map(|tuple| map(&Row(tuple))).collect()
    })
}

fn run<'conn>(
    client: &mut SpiClient<'conn>,
    sql: &str,
    statement: &CStr,
    args: &[DatumWithOid<'_>],
) -> Result<SpiTupleTable<'conn>> {
    Ok(match kept_plans::find(sql, args, true, |types| client.prepare_mut(statement, types))? {
        Some(plan) => client.update(&**plan, None, args)?,
        None => client.update(statement, None, args)?,
    })
}

/// Our statements are fixed: those that begin with WITH may write, those with SELECT do not.
fn is_select(sql: &str) -> bool {
    sql.trim_start().get(..6).is_some_and(|word| word.eq_ignore_ascii_case("select"))
}

/// Runs a query that returns at most one row of interest.
pub fn optional<'a, T>(sql: &str, args: &[DatumWithOid<'a>], map: impl Fn(&Row<'_>) -> Result<T>) -> Result<Option<T>> {
    Ok(rows(sql, args, map)?.into_iter().next())
}

/// Runs a query that returns one row.
pub fn one<'a, T>(sql: &str, args: &[DatumWithOid<'a>], map: impl Fn(&Row<'_>) -> Result<T>) -> Result<T> {
    optional(sql, args, map)?
        .ok_or_else(|| Error::new(SqlState::ERRCODE_NO_DATA_FOUND, "catalog query returned no row"))
}

/// Runs a statement; the number of rows it touched.
pub fn execute(sql: &str, args: &[DatumWithOid<'_>]) -> Result<u64> {
    Spi::connect_mut(|client| {
        let converted = server_text::arguments(args)?;
        let table = run(client, sql, &server_text::statement(sql)?, converted.as_deref().unwrap_or(args))?;
        Ok(table.len() as u64)
    })
}

/// Plans that are kept: scans of archives ask the same few questions for each partition.
const KEPT_PLANS: usize = 64;

thread_local! {
    static PLANS: RefCell<HashMap<String, pg_sys::SPIPlanPtr>> = RefCell::new(HashMap::new());
}

/// Runs a query that returns one text, under the latest snapshot even where the transaction keeps an older one, and
/// read-only. What an archive holds is decided like the table's shape: by what is committed now. While parallel workers
/// share the query's snapshot no other can be had.
pub fn latest_text(sql: &str, args: &[i64]) -> Result<Option<String>> {
    let _snapshot = (!xact::is_parallel()).then(LatestSnapshot::take);
    active_text(sql, args)
}

/// Runs a query that returns one text, read-only under the snapshot of the query that is running. The plan of one with arguments,
/// which are of type `bigint`, is kept.
pub fn active_text(sql: &str, args: &[i64]) -> Result<Option<String>> {
    let statement = server_text::statement(sql)?;
    // SAFETY: SPI is connected for the call; the text is copied into Rust memory before SPI_finish frees it. An error
    // unwinds and the transaction's abort closes SPI. A plan that is kept lives as long as the backend, and PostgreSQL makes it anew
    // when what it is about changes.
    unsafe {
        pg_sys::SPI_connect();
        let code = match plan(sql, &statement, args.len())? {
            None => pg_sys::SPI_execute(statement.as_ptr(), true, 1),
            Some(plan) => {
                let mut values: Vec<_> = args.iter().map(|value| pg_sys::Datum::from(*value)).collect();
                pg_sys::SPI_execute_plan(plan, values.as_mut_ptr(), std::ptr::null(), true, 1)
            }
        };
        let text = if code == pg_sys::SPI_OK_SELECT as i32 && pg_sys::SPI_processed > 0 {
            let table = pg_sys::SPI_tuptable;
            let value = pg_sys::SPI_getvalue(*(*table).vals, (*table).tupdesc, 1);
            (!value.is_null()).then(|| server_text::decode(std::ffi::CStr::from_ptr(value).to_bytes()))
        } else {
            None
        };
        pg_sys::SPI_finish();
        Ok(text)
    }
}

/// The plan of a statement with so many arguments, made and kept where it was not; `None` for one without.
///
/// # Safety
/// SPI is connected.
unsafe fn plan(sql: &str, statement: &CStr, arguments: usize) -> Result<Option<pg_sys::SPIPlanPtr>> {
    if arguments == 0 {
        return Ok(None);
    }
    if let Some(plan) = PLANS.with_borrow(|plans| plans.get(sql).copied()) {
        return Ok(Some(plan));
    }
    let mut types = vec![pg_sys::INT8OID; arguments];
    // SAFETY: as many types as arguments; the plan is a live one of this connection.
    let plan = unsafe { pg_sys::SPI_prepare(statement.as_ptr(), arguments as i32, types.as_mut_ptr()) };
    if plan.is_null() {
        // SAFETY: a code of this connection's last call.
        let code = unsafe { pg_sys::SPI_result };
        let message = format!("a query of the catalog cannot be planned: SPI error {code}");
        return Err(Error::new(SqlState::ERRCODE_INTERNAL_ERROR, message));
    }
    if PLANS.with_borrow(|plans| plans.len() < KEPT_PLANS) {
        // SAFETY: as above; it is moved out of the connection's memory.
        unsafe { pg_sys::SPI_keepplan(plan) };
        PLANS.with_borrow_mut(|plans| plans.insert(sql.to_owned(), plan));
    }
    Ok(Some(plan))
}
