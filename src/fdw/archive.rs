//! Which archived partition a foreign table stands for, and how its columns match the archive's.

use archive_core::schema::{Field, PgType};
use pgrx::pg_sys;

use super::options;
use crate::catalog;
use crate::catalog::column_map::Fill;
use crate::catalog::object::{self, ArchivedObject};
use crate::catalog::partition::{self, ArchivedPartition};
use crate::error::{Error, Result, SqlState};
use crate::pg::background;
use crate::pg::columns::{self, Column};
use crate::pg::foreign;
use crate::pg::guc::GucNest;
use crate::pg::relation::{LockMode, Relation};
use crate::pg::reshape::Reshaper;
use crate::pg::xact;
use crate::shape::{Archived, Builder, Origin, Volatile};

/// A foreign table whose right to read its partition was checked.
#[derive(Debug)]
pub(super) struct Archive {
    /// The foreign table.
    pub(super) table: pg_sys::Oid,
    /// The partition.
    pub(super) partition: ArchivedPartition,
    /// Owner of the foreign table: the storage is opened with this role's credentials.
    pub(super) owner: pg_sys::Oid,
    /// Live columns of the foreign table.
    pub(super) columns: Vec<Column>,
    /// Number of attributes of a row, dropped ones included.
    pub(super) attributes: usize,
}

impl Archive {
    /// The partition of foreign table `table`. The catalog must name that very table (42501): whoever copies the option
    /// into a table of their own reads nothing.
    pub(super) fn of(table: pg_sys::Oid) -> Result<Self> {
        let relation = open(table)?;
        let id = Self::id_of(table)?;
        let found = partition::archived(id)?.filter(|partition| partition.foreign_table == Some(table));
        let partition = found.ok_or_else(|| not_registered(&relation))?;
        Ok(Self::new(&relation, partition))
    }

    /// The partition that a foreign table names.
    pub(super) fn id_of(table: pg_sys::Oid) -> Result<i64> {
        let given = foreign::table_options(table);
        options::partition_id(given.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// The partition that the leader of a parallel query found.
    pub(super) fn of_leader(table: pg_sys::Oid, partition: ArchivedPartition) -> Result<Self> {
        Ok(Self::new(&open(table)?, partition))
    }

    fn new(relation: &Relation, partition: ArchivedPartition) -> Self {
        Self {
            table: relation.oid(),
            partition,
            owner: foreign::owner(relation),
            columns: columns::of_relation(relation),
            attributes: relation.attribute_count(),
        }
    }

    /// Refuses a SERIALIZABLE transaction whose snapshot is older than the archive run (40001): the archive has no row versions, so
    /// it would show rows that were committed after the snapshot.
    pub(super) fn refuse_older_snapshot(&self) -> Result<()> {
        let ArchivedPartition { id, version, name, row_set, .. } = &self.partition;
        if *row_set || !xact::is_serializable() || partition::is_in_snapshot(*id, *version)? {
            return Ok(());
        }
        Err(Error::new(
            SqlState::ERRCODE_T_R_SERIALIZATION_FAILURE,
            "could not serialize access due to a concurrent archive run",
        )
        .detail(format!("Partition {name} was archived after the transaction took its snapshot."))
        .hint("The transaction might succeed if retried."))
    }

    /// The partition's objects, with what is known of these fields only. Their rows must add up: the answer is never a part of the data (P12).
    pub(super) fn objects(&self, fields: &[i32]) -> Result<Vec<ArchivedObject>> {
        let (objects, expected) = if self.partition.row_set {
            object::of_row_set(self.partition.id, self.partition.version, fields)?
        } else {
            (object::of_partition(self.partition.id, self.partition.version, fields)?, self.partition.rows)
        };
        let rows: u64 = objects.iter().map(|object| object.rows).sum();
        if rows == expected {
            return Ok(objects);
        }
        Err(Error::new(
            SqlState::ERRCODE_DATA_CORRUPTED,
            format!("the catalog lacks objects of archived partition {}", self.partition.name),
        )
        .detail(format!("Its objects hold {rows} rows, and it has {expected}."))
        .hint("The manifest in the storage names every object; see archive_ext.objects."))
    }

    /// The foreign table's column with this attribute number.
    pub(super) fn column(&self, attribute: i16) -> Option<&Column> {
        let index = usize::try_from(attribute).ok()?.checked_sub(1)?;
        self.columns.iter().find(|column| column.index == index)
    }

    /// The archive's field of the column, if its values can be compared with the column's as they are: not where it was
    /// retyped or added later, nor where labels of its enum were renamed.
    pub(super) fn field(&self, column: &Column) -> Option<&Field> {
        match self.shape().origin(column) {
            Ok(Origin::Field(field)) if field.pg_type != PgType::Enum || self.has_same_labels(column) => Some(field),
            _ => None,
        }
    }

    /// Whether no function of anybody's is called for the column's values: casts and generated columns call some.
    pub(super) fn is_read_as_archived(&self, column: &Column) -> bool {
        match self.shape().origin(column) {
            Ok(Origin::Field(_)) => true,
            Ok(Origin::Added(mapped)) => !matches!(mapped.fill, Fill::Generated),
            Ok(Origin::Retyped(..)) | Err(_) => false,
        }
    }

    /// Whether this very database archived it: OIDs and collations mean the same.
    pub(super) fn is_of_this_database(&self) -> bool {
        self.partition.schema.origin.as_deref() == Some(background::database_identity().as_str())
    }

    /// Whether every label of the column's enum that there was is still that of the same value, in the same order.
    fn has_same_labels(&self, column: &Column) -> bool {
        let Ok(now) = catalog::enums(&columns::enums_within(column)) else { return false };
        let schema = &self.partition.schema;
        let here = self.is_of_this_database();
        now.iter().all(|now| {
            let then = schema.enums.iter().find(|then| if here { then.oid == now.oid } else { then.name == now.name });
            let place = |(oid, label): &(u32, String)| {
                now.labels.iter().position(|(now, name)| name == label && (!here || now == oid))
            };
            let places = then.and_then(|then| then.labels.iter().map(place).collect::<Option<Vec<_>>>());
            places.is_some_and(|places| places.is_sorted())
        })
    }

    /// How its rows were shaped, and how they are now.
    pub(super) fn shape(&self) -> Archived<'_> {
        let ArchivedPartition { name, schema, map, archived_at, .. } = &self.partition;
        Archived { name, schema, map, archived_at: *archived_at }
    }

    /// What makes archived rows rows of the foreign table: these attributes, or all. A column that cannot be read is
    /// refused (0A000).
    pub(super) fn reshaper(&self, attributes: Option<&[i16]>) -> Result<Reshaper> {
        let is_wanted = |column: &&Column| {
            attributes.is_none_or(|wanted| wanted.iter().any(|a| usize::try_from(*a) == Ok(column.index + 1)))
        };
        let _path = GucNest::new().safe_search_path();
        let relation = open(self.table)?;
        let mut builder = Builder::new(self.shape(), &relation, self.partition.source, Volatile::Refuse);
        for column in self.columns.iter().filter(is_wanted) {
            builder.add(column.index)?;
        }
        Ok(builder.finish())
    }

    /// The same for the columns that can be read; others stay NULL. For statistics only.
    pub(super) fn lenient_reshaper(&self) -> Result<Reshaper> {
        let _path = GucNest::new().safe_search_path();
        let relation = open(self.table)?;
        let mut builder = Builder::new(self.shape(), &relation, self.partition.source, Volatile::Refuse);
        for column in &self.columns {
            // What cannot be read has no statistics.
            let _ = builder.add(column.index);
        }
        Ok(builder.finish())
    }
}

fn open(table: pg_sys::Oid) -> Result<Relation> {
    Relation::open(table, LockMode::AccessShare)
        .ok_or_else(|| Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, "the foreign table was dropped meanwhile"))
}

fn not_registered(relation: &Relation) -> Error {
    Error::new(
        SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("foreign table \"{}\" is not the one registered for its archived partition", relation.name()),
    )
    .hint("Read the foreign table that archive_partition() created; its owner can GRANT SELECT on it.")
}
