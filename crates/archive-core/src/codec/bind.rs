//! Finds the columns of a table in the schema of a file.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, Schema, SchemaRef};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::ParquetMetaData;
use parquet::schema::types::SchemaDescriptor;

use super::guard::{corrupt, guarded};
use super::parquet_file::{FORMAT, FORMAT_KEY};
use crate::schema::{Field, PgType, TableSchema, sidecar_field};
use crate::{Error, ErrorKind, Result};

/// A column of the table and where it is in the file.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    pub(super) field_id: i32,
    pub(super) pg_type: PgType,
    pub(super) native: Place,
    pub(super) sidecar: Option<Place>,
}

/// A column of the file: its position among the fields, that of its first leaf, and how many leaves it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) root: usize,
    pub(super) leaf: usize,
    leaves: usize,
}

impl Place {
    /// All its leaves.
    pub(super) fn leaves(self) -> std::ops::Range<usize> {
        self.leaf..self.leaf + self.leaves
    }
}

/// Checks that the file holds every column of `schema` in the right type; the columns and the file's own schema.
pub(super) fn bind(metadata: &Arc<ParquetMetaData>, schema: &TableSchema) -> Result<(Vec<Bound>, SchemaRef)> {
    check_format(metadata)?;
    let inferred = guarded(|| ArrowReaderMetadata::try_new(Arc::clone(metadata), options()))?;
    let file = File { arrow: Arc::clone(inferred.schema()), parquet: metadata.file_metadata().schema_descr() };
    let columns = schema.fields.iter().map(|field| file.bind(field)).collect::<Result<Vec<_>>>()?;
    Ok((columns, file.arrow))
}

/// What Parquet needs to decode the file: text and bytes become views, which do not copy.
pub(super) fn decoding(metadata: Arc<ParquetMetaData>, file: &Schema) -> Result<ArrowReaderMetadata> {
    let viewed = Schema::new(file.fields().iter().map(|field| viewed(field)).collect::<Vec<_>>());
    guarded(|| ArrowReaderMetadata::try_new(metadata, options().with_schema(Arc::new(viewed))))
}

fn options() -> ArrowReaderOptions {
    ArrowReaderOptions::new().with_skip_arrow_metadata(true)
}

/// Files without the key were written by another program, which import checks by types alone.
fn check_format(metadata: &ParquetMetaData) -> Result<()> {
    let pairs = metadata.file_metadata().key_value_metadata();
    let format =
        pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == FORMAT_KEY)).and_then(|p| p.value.as_deref());
    match format {
        Some(format) if format != FORMAT => Err(Error::new(ErrorKind::Unsupported, "object has a newer file layout")
            .detail(format!("It has layout {format}; this version of archive_ext reads layout {FORMAT}."))
            .hint("Update the extension to the version that wrote the object.")),
        _ => Ok(()),
    }
}

struct File<'a> {
    arrow: SchemaRef,
    parquet: &'a SchemaDescriptor,
}

impl File<'_> {
    fn bind(&self, field: &Field) -> Result<Bound> {
        let native = self.place(field.id).ok_or_else(|| missing(field))?;
        self.check_type(native, &field.pg_type.arrow(&field.name, field.id), field)?;
        let sidecar = self.place(field.sidecar_id());
        if let Some(place) = sidecar {
            self.check_type(place, &sidecar_field(&field.name, field.sidecar_id()), field)?;
        }
        Ok(Bound { field_id: field.id, pg_type: field.pg_type.clone(), native, sidecar })
    }

    fn place(&self, id: i32) -> Option<Place> {
        let id = id.to_string();
        let with_id = |field: &Arc<ArrowField>| field.metadata().get(PARQUET_FIELD_ID_META_KEY) == Some(&id);
        let root = self.arrow.fields().iter().position(with_id)?;
        let all = 0..self.parquet.num_columns();
        let mut leaves = all.filter(|leaf| self.parquet.get_column_root_idx(*leaf) == root);
        Some(Place { root, leaf: leaves.next()?, leaves: 1 + leaves.count() })
    }

    fn check_type(&self, place: Place, expected: &ArrowField, field: &Field) -> Result<()> {
        let found = self.arrow.fields().get(place.root).map(|found| found.data_type());
        if found.is_some_and(|found| found.equals_datatype(expected.data_type())) {
            return Ok(());
        }
        let found = found.map_or_else(|| "nothing".to_owned(), ToString::to_string);
        Err(corrupt(format!("column \"{}\" has another type in the object", field.name)).detail(format!(
            "The object holds {found}, but {} is archived as {}.",
            field.pg_type.sql_name(),
            expected.data_type()
        )))
    }
}

fn missing(field: &Field) -> Error {
    corrupt(format!("object lacks column \"{}\"", field.name)).detail(format!("No column has field id {}.", field.id))
}

/// The field with views instead of owned text and bytes.
fn viewed(field: &ArrowField) -> ArrowField {
    let data_type = match field.data_type() {
        DataType::Utf8 => DataType::Utf8View,
        DataType::Binary => DataType::BinaryView,
        DataType::Struct(members) => DataType::Struct(members.iter().map(|member| viewed(member)).collect()),
        DataType::List(element) => DataType::List(Arc::new(viewed(element))),
        other => other.clone(),
    };
    field.clone().with_data_type(data_type)
}
