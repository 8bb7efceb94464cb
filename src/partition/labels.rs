//! LIST partitions by lifecycle label: which there are, and making those that are missing.

use archive_core::lifecycle::{Label, list_values, partition_name};
use pgrx::pg_sys;
use pgrx::spi::{quote_identifier, quote_literal, quote_qualified_identifier};

use super::{discover, locks, swap};
use crate::catalog;
use crate::error::{Error, Result, SqlState};
use crate::pg::relation::LockMode;
use crate::pg::{spi, user};

/// PostgreSQL's limit on names, in bytes.
const LONGEST_NAME: usize = 63;

/// A direct partition of a LIST table.
#[derive(Debug, Clone)]
pub struct LabelPartition {
    /// Its OID.
    pub oid: pg_sys::Oid,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// The values it takes; none for DEFAULT.
    pub values: Vec<String>,
    /// Whether it is the DEFAULT partition.
    pub is_default: bool,
}

/// A table that is partitioned by a column of labels.
#[derive(Debug, Clone)]
pub struct LabelTable {
    /// Its OID.
    pub oid: pg_sys::Oid,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Owner.
    pub owner: pg_sys::Oid,
    /// The column of labels.
    pub column: String,
    /// Its partitions, oldest first.
    pub partitions: Vec<LabelPartition>,
}

impl LabelTable {
    /// Looks at a table; `None` unless it is LIST-partitioned by one column.
    pub fn of(oid: pg_sys::Oid) -> Result<Option<Self>> {
        let column = user::elevated(|| {
            spi::optional(
                "SELECT a.attname::text FROM pg_partitioned_table k
                 JOIN pg_attribute a ON a.attrelid = k.partrelid AND a.attnum = k.partattrs[0]
                 WHERE k.partrelid = $1 AND k.partstrat = 'l' AND k.partnatts = 1",
                &[oid.into()],
                |row| row.need::<String>(1),
            )
        })?;
        let Some(column) = column else { return Ok(None) };
        let (schema, name) = discover::schema_and_name(oid)?;
        Ok(Some(Self { oid, schema, name, owner: discover::owner(oid)?, column, partitions: partitions(oid)? }))
    }

    /// `schema.name`, quoted where needed.
    pub fn qualified(&self) -> String {
        quote_qualified_identifier(self.schema.as_str(), self.name.as_str())
    }

    /// The partition that takes `value`, but for DEFAULT.
    pub fn partition_of(&self, value: &str) -> Option<&LabelPartition> {
        self.partitions.iter().find(|partition| partition.values.iter().any(|taken| taken == value))
    }

    /// How the partitions spell `label`: ARCHIVE or ARCHIVED.
    pub fn value_of(&self, label: &Label) -> Option<&str> {
        let values = self.partitions.iter().flat_map(|partition| &partition.values);
        values.map(String::as_str).find(|value| value.parse::<Label>().is_ok_and(|known| known == *label))
    }

    /// The DEFAULT partition.
    pub fn default_partition(&self) -> Option<&LabelPartition> {
        self.partitions.iter().find(|partition| partition.is_default)
    }

    /// Schema and name for the partition of `label`: beside the others and named like them.
    fn place_for(&self, label: &Label) -> (&str, String) {
        let labelled: Vec<_> = self
            .partitions
            .iter()
            .filter_map(|partition| match partition.values.as_slice() {
                [value] => Some((partition, value.parse::<Label>().ok()?)),
                _ => None,
            })
            .collect();
        let named: Vec<_> = labelled.iter().map(|(partition, label)| (partition.name.clone(), *label)).collect();
        let schema = labelled.first().map_or(self.schema.as_str(), |(partition, _)| partition.schema.as_str());
        (schema, partition_name(&self.name, label, &named))
    }
}

fn partitions(parent: pg_sys::Oid) -> Result<Vec<LabelPartition>> {
    user::elevated(|| {
        spi::rows(
            "SELECT c.oid, n.nspname::text, c.relname::text, pg_get_expr(c.relpartbound, c.oid)
             FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE i.inhparent = $1 AND NOT i.inhdetachpending ORDER BY c.oid",
            &[parent.into()],
            |row| {
                let bounds: String = row.need(4)?;
                Ok(LabelPartition {
                    oid: row.need(1)?,
                    schema: row.need(2)?,
                    name: row.need(3)?,
                    values: list_values(&bounds),
                    is_default: bounds == "DEFAULT",
                })
            },
        )
    })
}

/// Makes the partition of `table` for the label `value`, unless there is one by now; its OID when it was made.
///
/// Locks: SHARE UPDATE EXCLUSIVE on the table, so that readers and writers go on, and ACCESS EXCLUSIVE on its DEFAULT
/// partition if it has one; tables tied to it by foreign keys are locked as by ADD FOREIGN KEY. Refused when the DEFAULT
/// partition holds rows of the label (55000), when the name is taken (42P07) or too long (42622).
pub fn create(table: &LabelTable, value: &str, tablespace: Option<&str>) -> Result<Option<pg_sys::Oid>> {
    let label = value.parse::<Label>()?;
    let root = table.qualified();
    locks::acquire(table.oid, &root, LockMode::ShareUpdateExclusive)?;
    let Some(now) = LabelTable::of(table.oid)? else { return Ok(None) };
    if now.partition_of(value).is_some() {
        return Ok(None);
    }
    refuse_rows_in_default(&now, value)?;
    let (schema, name) = now.place_for(&label);
    free_name(schema, &name, &root, value)?;
    let partition = quote_qualified_identifier(schema, name.as_str());
    let space = tablespace.map_or_else(String::new, |space| format!(" TABLESPACE {}", quote_identifier(space)));
    let _bounded = swap::bounded();
    user::as_user(now.owner, || {
        // LIKE and ATTACH rather than PARTITION OF, which would take ACCESS EXCLUSIVE on the table.
        spi::execute(
            &format!(
                "CREATE TABLE {partition} (LIKE {root} INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING CONSTRAINTS \
                 INCLUDING STORAGE INCLUDING COMPRESSION){space}"
            ),
            &[],
        )?;
        let bounds = quote_literal(value);
        spi::execute(&format!("ALTER TABLE {root} ATTACH PARTITION {partition} FOR VALUES IN ({bounds})"), &[])
    })?;
    discover::find_relation(schema, &name)
}

fn refuse_rows_in_default(table: &LabelTable, value: &str) -> Result<()> {
    let Some(default) = table.default_partition() else { return Ok(()) };
    let name = quote_qualified_identifier(default.schema.as_str(), default.name.as_str());
    let column = quote_identifier(&table.column);
    let holds = user::as_user(table.owner, || {
        spi::one(&format!("SELECT EXISTS (SELECT FROM {name} WHERE {column} = {})", quote_literal(value)), &[], |row| {
            row.need::<bool>(1)
        })
    })?;
    if !holds {
        return Ok(());
    }
    let root = table.qualified();
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("DEFAULT partition \"{name}\" holds rows of {value}"),
    )
    .detail(format!("\"{root}\" has no partition for {value}, and none can be made while its rows are there."))
    .hint(format!(
        "BEGIN; ALTER TABLE {root} DETACH PARTITION {name}; create the partition; INSERT its rows from {name} and DELETE them there; ATTACH {name} DEFAULT; COMMIT."
    )))
}

fn free_name(schema: &str, name: &str, root: &str, value: &str) -> Result<()> {
    let by_hand =
        format!("CREATE TABLE … PARTITION OF {root} FOR VALUES IN ({}); makes it by hand.", quote_literal(value));
    if name.len() > LONGEST_NAME {
        return Err(Error::new(
            SqlState::ERRCODE_NAME_TOO_LONG,
            format!("the name of the partition for {value} would be longer than {LONGEST_NAME} bytes: \"{name}\""),
        )
        .hint(by_hand));
    }
    match discover::find_relation(schema, name)? {
        None => Ok(()),
        Some(taken) => Err(Error::new(
            SqlState::ERRCODE_DUPLICATE_TABLE,
            format!("the partition for {value} cannot be named \"{}\"", catalog::qualified_name(taken)?),
        )
        .detail("Another relation has this name.")
        .hint(by_hand)),
    }
}
