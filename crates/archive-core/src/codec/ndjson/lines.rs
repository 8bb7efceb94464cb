//! The lines of the rows that wait for their object.

use super::cell::{json, put, separate};
use crate::Result;
use crate::codec::value::Value;
use crate::schema::{PgType, TableSchema};

/// Lines as they are written, value by value.
#[derive(Debug)]
pub(in crate::codec) struct LineBuffer {
    columns: Vec<LineColumn>,
    lines: Vec<u8>,
    /// Members that follow the row's own: names and texts of its sidecars.
    sidecars: Vec<u8>,
}

#[derive(Debug)]
struct LineColumn {
    pg_type: PgType,
    /// `"name":`
    name: Vec<u8>,
    sidecar: Vec<u8>,
}

impl LineBuffer {
    /// A buffer of rows of `schema`.
    pub(in crate::codec) fn new(schema: &TableSchema) -> Result<Self> {
        let columns = schema.fields.iter().zip(schema.sidecar_names()).map(|(field, sidecar)| {
            Ok(LineColumn { pg_type: field.pg_type.clone(), name: member(&field.name)?, sidecar: member(&sidecar)? })
        });
        Ok(Self { columns: columns.collect::<Result<_>>()?, lines: Vec::new(), sidecars: Vec::new() })
    }

    /// Appends the next value of the row. `false` for an outlier, which is null in the line.
    pub(in crate::codec) fn append(&mut self, column: usize, value: Option<&Value<'_>>) -> Result<bool> {
        let Some(LineColumn { pg_type, name, .. }) = self.columns.get(column) else { return Ok(false) };
        self.lines.extend_from_slice(if column == 0 { b"{" } else { b"," });
        self.lines.extend_from_slice(name);
        let begin = self.lines.len();
        let stored = put(&mut self.lines, pg_type, value)?;
        if !stored {
            self.lines.truncate(begin);
            self.lines.extend_from_slice(b"null");
        }
        Ok(stored)
    }

    /// The text of the outlier that was just appended.
    pub(in crate::codec) fn append_text(&mut self, column: usize, text: &str) -> Result<()> {
        let Some(LineColumn { sidecar, .. }) = self.columns.get(column) else { return Ok(()) };
        separate(&mut self.sidecars, 1);
        self.sidecars.extend_from_slice(sidecar);
        json(&mut self.sidecars, text)
    }

    /// Ends the row's line.
    pub(in crate::codec) fn end_row(&mut self) {
        self.lines.append(&mut self.sidecars);
        self.lines.extend_from_slice(b"}\n");
    }

    /// The lines so far.
    pub(in crate::codec) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.lines)
    }
}

fn member(name: &str) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    json(&mut text, name)?;
    text.push(b':');
    Ok(text)
}
