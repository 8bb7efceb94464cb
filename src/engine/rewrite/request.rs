//! What is to be merged, and what that means for a table.

use archive_core::lifecycle::Threshold;
use pgrx::pg_sys;

use crate::catalog;
use crate::engine::batch::{self, KeyColumn};
use crate::error::{Error, Result, SqlState};
use crate::export::ExportSource;
use crate::guc;
use crate::partition::discover::{self, Leaf};
use crate::pg::user;

/// Which objects of a table's archive are merged.
#[derive(Debug, Clone)]
pub struct Request {
    /// The table, whose rows are archived one by one.
    pub source: pg_sys::Oid,
    /// The column whose months part the objects; found where it is not named.
    pub time_column: Option<String>,
    /// Small objects of one month from which on they are merged; two at least.
    pub min_objects: i32,
    /// Bytes of the objects merged in one go, about; `archive_ext.object_size` where nobody says.
    pub max_bytes: Option<i64>,
}

impl Request {
    /// Everything of a table, with the bounds that nobody chose.
    pub fn of_table(source: pg_sys::Oid, min_objects: i32) -> Self {
        Self { source, time_column: None, min_objects, max_bytes: None }
    }

    /// When objects are merged.
    pub fn threshold(&self) -> Threshold {
        let bytes = self.max_bytes.map_or_else(guc::object_bytes, i64::unsigned_abs);
        Threshold { objects: usize::try_from(self.min_objects).unwrap_or_default(), bytes }
    }

    /// Refuses groups of one object, or of nothing (22023).
    pub fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::new(SqlState::ERRCODE_INVALID_PARAMETER_VALUE, what));
        match (self.min_objects, self.max_bytes) {
            (..2, _) => wrong("min_objects must be at least 2"),
            (_, Some(..=0)) => wrong("max_bytes must be positive"),
            _ => Ok(()),
        }
    }
}

/// Objects of at least half the size of an object are left alone: merging them brings no more.
pub fn small_bytes() -> u64 {
    guc::object_bytes() / 2
}

/// A table whose rows are archived one by one, which the caller may change the archive of.
///
/// Errors: 42P01, 42809 for partitions and tables partitioned otherwise, 42501 for tables of others.
pub fn table(source: pg_sys::Oid, verb: &str) -> Result<Leaf> {
    let Some(table) = discover::leaf(source)? else {
        return Err(Error::new(
            SqlState::ERRCODE_UNDEFINED_TABLE,
            format!("relation with OID {} does not exist", source.to_u32()),
        ));
    };
    let name = table.qualified();
    let wrong = |what: &str, hint: String| {
        let message = format!("{verb} is for tables whose rows are archived one by one");
        Err(Error::new(SqlState::ERRCODE_WRONG_OBJECT_TYPE, message).detail(format!("\"{name}\" {what}.")).hint(hint))
    };
    if let Some(root) = table.root.filter(|root| *root != source) {
        let by_rows = discover::kind(root)?.is_archived_by_rows() || catalog::row_set::of_partition(source)?.is_some();
        let hint = match by_rows {
            true => format!("Name its table, \"{}\".", catalog::qualified_name(root)?),
            false => format!("reattach_partition('{name}') brings it back as a whole."),
        };
        return wrong("is a partition", hint);
    }
    let by_rows = matches!(table.kind, 'r' | 'p')
        && (discover::kind(source)?.is_archived_by_rows() || catalog::row_set::any(source)?);
    if !by_rows {
        let hint = "reattach_partition(partition) brings an archived partition back as a whole.".to_owned();
        return wrong("is archived by partitions", hint);
    }
    if user::has_privileges_of(table.owner) {
        return Ok(table);
    }
    Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("must be owner of table {name}")))
}

/// The column with the times of the rows, if there is one: as named, as the policy says, or the only one that can be it.
pub fn time(table: &Leaf, named: Option<&str>) -> Result<Option<String>> {
    let unknown = |error: &Error| {
        let state = error.sqlstate();
        matches!(state, SqlState::ERRCODE_UNDEFINED_COLUMN | SqlState::ERRCODE_AMBIGUOUS_COLUMN)
    };
    match batch::time(table, named) {
        Err(error) if named.is_none() && unknown(&error) => Ok(None),
        found => found.map(Some),
    }
}

/// The field with the times of a table's rows, as objects know it; none where no column tells the time.
pub fn time_field(source: pg_sys::Oid) -> Result<Option<i32>> {
    let Some(table) = discover::leaf(source)? else { return Ok(None) };
    let column = match time(&table, None) {
        Ok(Some(column)) => column,
        Ok(None) => return Ok(None),
        // The policy's column is one of ids, or was retyped.
        Err(error) if error.sqlstate() == SqlState::ERRCODE_DATATYPE_MISMATCH => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(catalog::column_map::of_source(source)?.id_of(&column))
}

/// The columns of the key, in whose order rows of one time stand; none for a table that has lost its key.
pub fn key(table: &Leaf) -> Result<Vec<KeyColumn>> {
    match batch::key(table, None) {
        Err(error) if error.sqlstate() == SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE => Ok(Vec::new()),
        found => found,
    }
}

/// The fields of the key that objects get filters of; none for a table that has lost its key.
pub fn filter_fields(table: &Leaf, source: &ExportSource) -> Result<Vec<i32>> {
    if key(table)?.is_empty() { Ok(Vec::new()) } else { batch::filter_fields(table, source) }
}
