//! Archived cells to the values of a row.

use archive_core::codec::{Decoded, DecodedBatch};

use super::archive::Archive;
use crate::error::Result;
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
        let (mut columns, mut fields) = (Vec::new(), Vec::new());
        for column in &archive.columns {
            let wanted =
                attributes.is_none_or(|wanted| wanted.iter().any(|a| usize::try_from(*a) == Ok(column.index + 1)));
            if wanted {
                let field = archive.matching_field(column)?;
                columns.push(ColumnIo::new(column, &field.pg_type));
                fields.push(field.id);
            }
        }
        Ok(Self { columns, fields })
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
