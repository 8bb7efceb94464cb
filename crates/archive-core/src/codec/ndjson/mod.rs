//! Rows as lines of JSON, which any tool reads and no library is needed for.
//!
//! A line is an object with a member for each column, in the order of the columns, and after these one for each sidecar that the
//! row needs, as in Parquet: `<column>__pg`. JSON has fewer types, so what its readers would change is text in it
//! (a numeric of more than 15 digits), and what it has no form for goes into the sidecar (a NaN). Numbers are read from their
//! digits, never by way of a double.

mod cell;
mod file;
mod lines;
mod parse;
mod reader;
mod time;

pub(super) use file::NdjsonFile;
pub(super) use lines::LineBuffer;
pub(super) use parse::LineCell;
pub(super) use reader::NdjsonReader;

/// Whether a value has a form in a line.
#[cfg(test)]
pub(super) fn has_json(pg_type: &crate::schema::PgType, value: &super::Value<'_>) -> bool {
    cell::put(&mut Vec::new(), pg_type, Some(value)).unwrap()
}
