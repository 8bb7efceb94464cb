//! Archived cells to the values of a row.

use archive_core::codec::{Decoded, DecodedBatch};
use archive_core::schema::Field;

use super::archive::Archive;
use crate::error::Result;
use crate::pg::columns::Column;
use crate::pg::datum::ColumnIo;
use crate::pg::guc::GucNest;
use crate::pg::row::RowBuffer;

/// The columns that are read, in the order in which the codec is asked for them.
#[derive(Debug)]
pub(super) struct RowDecoder {
    columns: Vec<ColumnIo>,
    fields: Vec<i32>,
}

impl RowDecoder {
    /// A decoder of these attributes, or of all. A column that the archive lacks is refused.
    pub(super) fn new(archive: &Archive, attributes: Option<&[i16]>) -> Result<Self> {
        let is_wanted = |column: &Column| {
            attributes.is_none_or(|wanted| wanted.iter().any(|a| usize::try_from(*a) == Ok(column.index + 1)))
        };
        let wanted = archive.columns.iter().filter(|column| is_wanted(column));
        let matched: Result<Vec<_>> = wanted.map(|column| Ok((column, archive.matching_field(column)?))).collect();
        Ok(Self::of(archive, matched?))
    }

    /// A decoder of the columns that the archive has; others stay NULL. For statistics only.
    pub(super) fn lenient(archive: &Archive) -> Self {
        let matched = archive.columns.iter().filter_map(|column| Some((column, archive.field(column)?)));
        Self::of(archive, matched.collect())
    }

    fn of(archive: &Archive, matched: Vec<(&Column, &Field)>) -> Self {
        let schema = &archive.partition.schema;
        let io = |(column, field): &(&Column, &Field)| ColumnIo::archived(column, &field.pg_type, schema);
        let columns = matched.iter().map(io).collect();
        Self { columns, fields: matched.iter().map(|(_, field)| field.id).collect() }
    }

    /// Field ids of the columns.
    pub(super) fn fields(&self) -> &[i32] {
        &self.fields
    }

    /// Fills `row` from a row of a batch; values are made in the current memory context.
    pub(super) fn decode(&self, batch: &DecodedBatch, at: usize, row: &mut RowBuffer) -> Result<()> {
        for (position, column) in self.columns.iter().enumerate() {
            let cell = batch.get(position, at)?;
            // Few cells are text. The session's settings must not change what they mean.
            let _settings = matches!(cell, Decoded::Text(_)).then(GucNest::lossless_text);
            column.write(&cell, row)?;
        }
        Ok(())
    }
}
