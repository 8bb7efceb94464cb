//! A row as PostgreSQL hands it over: datums and null flags, borrowed until the next row.

use pgrx::pg_sys;

use super::constant::Constant;

/// The columns of one row in attribute order.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    values: &'a [pg_sys::Datum],
    nulls: &'a [bool],
}

impl<'a> Row<'a> {
    /// A row over arrays that PostgreSQL or a row builder filled.
    pub(super) fn new(values: &'a [pg_sys::Datum], nulls: &'a [bool]) -> Self {
        Self { values, nulls }
    }

    /// The datum at attribute index `index` (from 0); `None` for NULL.
    pub(super) fn datum(&self, index: usize) -> Option<pg_sys::Datum> {
        match (self.values.get(index), self.nulls.get(index)) {
            (Some(datum), Some(false)) => Some(*datum),
            _ => None,
        }
    }
}

/// A row being rebuilt from an archive, in memory that is reset for each row.
#[derive(Debug)]
pub struct RowBuffer {
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
}

impl RowBuffer {
    /// A row of `columns` attributes, all NULL.
    pub fn new(columns: usize) -> Self {
        Self { values: vec![pg_sys::Datum::null(); columns], nulls: vec![true; columns] }
    }

    /// Sets one attribute.
    #[inline]
    pub(super) fn set(&mut self, index: usize, datum: Option<pg_sys::Datum>) {
        if let (Some(value), Some(null)) = (self.values.get_mut(index), self.nulls.get_mut(index)) {
            *null = datum.is_none();
            *value = datum.unwrap_or(pg_sys::Datum::null());
        }
    }

    /// Sets one attribute to a value from elsewhere, which outlives the row.
    pub fn put(&mut self, index: usize, constant: Option<Constant>) {
        self.set(index, constant.map(|constant| constant.datum()));
    }

    /// The row.
    pub fn row(&self) -> Row<'_> {
        Row::new(&self.values, &self.nulls)
    }

    pub(super) fn parts(&self) -> (&[pg_sys::Datum], &[bool]) {
        (&self.values, &self.nulls)
    }
}
