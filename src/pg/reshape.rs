//! Archived rows into rows of the shape that the table has now: copied, cast, filled, computed.

use archive_core::codec::{Decoded, DecodedBatch, RowHasher};
use archive_core::schema::{PgType, TableSchema};
use pgrx::pg_sys;

use super::arena::Arena;
use super::cast::{Cast, TypeRef};
use super::datum::{self, ColumnIo};
use super::guc::GucNest;
use super::row::RowBuffer;
use super::row_expr::RowExpression;
use crate::error::Result;

/// Where the value of a column comes from.
#[derive(Debug)]
enum Part {
    /// The archived value at this position.
    Copy(usize),
    /// The same, cast.
    Cast(usize, Cast),
    /// One value for all rows.
    Constant(Option<pg_sys::Datum>),
}

/// Fills rows of a relation from archived ones. It lives in the memory context that was current when it was made.
#[derive(Debug, Default)]
pub struct Reshaper {
    fields: Vec<i32>,
    archived: Vec<ColumnIo>,
    row: Option<RowBuffer>,
    parts: Vec<(usize, Part)>,
    computed: Vec<(usize, RowExpression)>,
}

impl Reshaper {
    /// Reads a field into the archived row, of which `archived_row` tells; its position there.
    pub fn read(&mut self, schema: &TableSchema, field: i32, name: &str, of: TypeRef, pg_type: &PgType) -> usize {
        if let Some(position) = self.fields.iter().position(|known| *known == field) {
            return position;
        }
        let position = self.fields.len();
        self.fields.push(field);
        self.archived.push(ColumnIo::archived(&of.as_column(position, name), pg_type, schema));
        position
    }

    /// The column at index `to` is the archived value at `position`.
    pub fn copy(&mut self, position: usize, to: usize) {
        self.parts.push((to, Part::Copy(position)));
    }

    /// The column at index `to` is the archived value at `position`, cast.
    pub fn cast(&mut self, position: usize, cast: Cast, to: usize) {
        self.parts.push((to, Part::Cast(position, cast)));
    }

    /// The column at index `to` is NULL, or this text read as a value of `of` and cast.
    pub fn constant(&mut self, text: Option<&str>, of: TypeRef, cast: Option<&Cast>, to: usize) {
        let value = text.and_then(|text| {
            let _text = GucNest::lossless_text();
            datum::input_text(of.oid, text)
        });
        let value = match cast {
            Some(cast) => cast.apply(value),
            None => value,
        };
        self.parts.push((to, Part::Constant(value)));
    }

    /// The column at index `to` is computed from the others of the row.
    pub fn compute(&mut self, expression: RowExpression, to: usize) {
        self.computed.push((to, expression));
    }

    /// The fields that are read, in the order in which the codec is asked for them.
    pub fn fields(&self) -> &[i32] {
        &self.fields
    }

    /// Fills `row` from a row of a batch; values are made in `arena` and in the current memory context. The archived row is added to
    /// `hasher`, as it was archived: a label may have another name since, and an object another OID. That needs
    /// [`GucNest::lossless_text`].
    pub fn decode(
        &mut self,
        batch: &DecodedBatch,
        at: usize,
        row: &mut RowBuffer,
        arena: &mut Arena,
        mut hasher: Option<&mut RowHasher>,
    ) -> Result<()> {
        let archived = self.row.get_or_insert_with(|| RowBuffer::new(self.fields.len()));
        for (position, io) in self.archived.iter().enumerate() {
            batch.visit(position, at, |cell| -> Result<()> {
                // Few cells are text. The session's settings must not change what they mean.
                let _settings = matches!(cell, Decoded::Text(_)).then(GucNest::lossless_text);
                io.write(cell, archived, arena)?;
                if let Some(hasher) = &mut hasher {
                    match cell {
                        Decoded::Null => hasher.column(position, None),
                        Decoded::Value(value) => hasher.column(position, Some(value)),
                        Decoded::Text(_) => hasher.column(position, io.read(&archived.row())?.as_ref()),
                    }
                }
                Ok(())
            })??;
        }
        if let Some(hasher) = hasher {
            hasher.end_row();
        }
        let archived = archived.row();
        for (to, part) in &self.parts {
            let value = match part {
                Part::Copy(position) => archived.datum(*position),
                Part::Cast(position, cast) => cast.apply(archived.datum(*position)),
                Part::Constant(value) => *value,
            };
            row.set(*to, value);
        }
        for (to, expression) in &self.computed {
            expression.set(row, *to);
        }
        Ok(())
    }
}
