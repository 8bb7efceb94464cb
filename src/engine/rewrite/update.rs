//! `update_archived`: archived rows are corrected where they are. They leave their objects as erased ones do, and what they become goes to
//! objects of its own, in the same version.

use archive_core::naming;
use archive_core::store::BlockingStore;
use pgrx::pg_sys;
use pgrx::spi::quote_identifier;

use super::archived::{self, ArchivedRows, Names};
use super::erase::{self, Changed, ChangedSet, Erased, Wish};
use super::matched::{self, Matched, Touched};
use super::partition;
use super::request;
use super::restore::Shrinking;
use super::without;
use crate::catalog;
use crate::engine::plan::job_hex;
use crate::engine::restore;
use crate::error::{Error, Result, SqlState};
use crate::export::{self, ExportSource, Objects};
use crate::partition::discover::{self, Attribute, Leaf};
use crate::pg::relation::LockMode;
use crate::pg::{expression, spi, user, xact};

/// Gives columns of archived rows new values: `changes` are expressions by column, over the row as it is. Rows of the table stay as they
/// are. How many rows were corrected is in `erased`.
///
/// Locks and errors: those of `erase`, but for DELETE; 42703 for a column that is none, 42601 for a value that is not one expression; 0A000
/// where rows were archived with other columns than the table has, and where a local copy is kept; 23514 for a row that would leave its
/// partition, and what the table's own constraints refuse.
pub fn update(wish: &Wish<'_>, changes: &[(String, String)]) -> Result<Erased> {
    let table = matched::table(wish.source, "correcting archived rows")?;
    let columns = discover::attributes(table.oid)?;
    check(changes, &columns)?;
    let matched = matched::find(&table, wish.clause)?;
    let mut changed = Changed::default();
    for touched in &matched.partitions {
        refuse_local_copy(touched)?;
        let corrected = Corrected::make(&table, &columns, changes, (touched.subject.foreign_table, &touched.places))?;
        corrected.check_bounds(touched)?;
        let add = |store: &BlockingStore, rows: &ArchivedRows<'_>, beside: &str| {
            let objects = Objects::default();
            let written = corrected
                .write(&rows.source, store, &objects, &|ordinal| rows.names.key(beside, ordinal, objects.format))?;
            written.objects.iter().try_for_each(|object| rows.read_back(object))?;
            Ok(written.objects)
        };
        changed.versions.push(partition::rewrite(&table, touched, Some(&add))?);
        corrected.forget()?;
    }
    for (number, shrinking) in (1..).zip(matched.sets.iter().filter(|one| !one.taken.is_empty())) {
        correct_set(&table, &matched, (shrinking, number), &columns, changes, &mut changed)?;
    }
    failpoint!("update_rewritten");
    match matched.rows() {
        0 => Ok(Erased { receipt: None, deleted: 0, erased: 0, objects: 0, delete_after: None }),
        rows => erase::finish(wish, "update", &table, (0, rows), &mut changed),
    }
}

fn correct_set(
    table: &Leaf,
    matched: &Matched,
    (shrinking, number): (&Shrinking, u32),
    columns: &[Attribute],
    changes: &[(String, String)],
    changed: &mut Changed,
) -> Result<()> {
    let id = catalog::job::new_id()?;
    let set = &shrinking.set;
    let places = matched.set_places.get(&set.id).cloned().unwrap_or_default();
    let corrected = Corrected::make(table, columns, changes, (set.foreign_table, &places))?;
    let (store, mut rewritten) = without::rewrite(table, shrinking, (id, number))?;
    let source = archived::shape(table, set.id)?;
    let format = archived::newest_format(rewritten.gone.last().map(|gone| &gone.object))?;
    let objects = Objects { filter_fields: request::filter_fields(table, &source)?, format };
    let beside = rewritten.gone.first().map(|gone| gone.object.key.clone()).unwrap_or_default();
    let attempt = catalog::job::new_id()?;
    let key = |ordinal: u32| {
        let sha256 = archive_core::codec::sha256_of_bytes(format!("{attempt} {ordinal}").as_bytes());
        let batch = naming::BatchName { job: &job_hex(id), number, sha256: &sha256 };
        naming::batch_key_beside(&beside, &table.name, batch, format)
    };
    let written = corrected.write(&source, &store, &objects, &key)?;
    let names = Names::Batch { table: &table.name, of: (id, number), attempt };
    let rows = ArchivedRows { source, filter_fields: Vec::new(), store: &store, names };
    written.objects.iter().try_for_each(|object| rows.read_back(object))?;
    drop(rows);
    written.objects.iter().for_each(|object| rewritten.added.merge(&object.digest));
    let former = || rewritten.gone.iter().map(|gone| &gone.object);
    let corrected_rows: Vec<_> = written.objects.into_iter().map(|object| object.made_of(former())).collect();
    rewritten.objects.extend(corrected_rows);
    rewritten.filters.extend(written.filters);
    let (set, storage) = (set.id, set.storage.clone());
    changed.sets.push(ChangedSet { set, storage, store, step: (id, number), rewritten });
    corrected.forget()
}

/// Each change is one expression for a column that has values of its own.
fn check(changes: &[(String, String)], columns: &[Attribute]) -> Result<()> {
    if changes.is_empty() {
        return Err(Error::new(SqlState::ERRCODE_INVALID_PARAMETER_VALUE, "no column is to be changed")
            .hint("update_archived(table, where_clause, '{\"note\": \"NULL\", \"amount\": \"amount * 2\"}')"));
    }
    for (column, value) in changes {
        let Some(known) = columns.iter().find(|known| known.name == *column) else {
            return Err(Error::new(SqlState::ERRCODE_UNDEFINED_COLUMN, format!("column \"{column}\" does not exist")));
        };
        if !known.generated.is_empty() {
            let message = format!("column \"{column}\" can only be computed");
            return Err(Error::new(SqlState::ERRCODE_GENERATED_ALWAYS, message));
        }
        let one = expression::located(|| expression::is_one(value)).map_err(|located| {
            Error::new(
                located.error.sqlstate,
                format!("invalid value for column \"{column}\": {}", located.error.message),
            )
        })??;
        if !one {
            return Err(Error::new(
                SqlState::ERRCODE_SYNTAX_ERROR,
                format!("the value for column \"{column}\" is not one expression"),
            )
            .detail(format!("Value: {value}")));
        }
    }
    Ok(())
}

fn refuse_local_copy(touched: &Touched) -> Result<()> {
    let subject = &touched.subject;
    if subject.local_copy.is_none() {
        return Ok(());
    }
    Err(Error::new(
        SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("the local copy of \"{}\" is kept, and would have the old values", subject.name),
    )
    .hint(format!(
        "SELECT drop_local_copy('{0}') first, or reattach_partition('{0}', writable => true), which takes no time, and UPDATE it.",
        subject.name
    )))
}

/// The corrected rows of one partition or row set, in a temporary table of the shape of the hot table.
struct Corrected {
    table: pg_sys::Oid,
    name: String,
    source: pg_sys::Oid,
    rows: u64,
}

impl Corrected {
    fn make(
        table: &Leaf,
        columns: &[Attribute],
        changes: &[(String, String)],
        (archived, places): (Option<pg_sys::Oid>, &[String]),
    ) -> Result<Self> {
        let Some(archived) = archived else {
            return Err(Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, "the archive was dropped meanwhile"));
        };
        let from = catalog::qualified_name(archived)?;
        let alias = quote_identifier(&table.name);
        let stored: Vec<_> = columns.iter().filter(|column| column.generated.is_empty()).collect();
        let value = |column: &Attribute| match changes.iter().find(|(name, _)| *name == column.name) {
            Some((_, value)) => format!("(\n{value}\n)"),
            None => format!("{alias}.{}", quote_identifier(&column.name)),
        };
        let names: Vec<_> = stored.iter().map(|column| quote_identifier(&column.name).to_string()).collect();
        let values: Vec<_> = stored.iter().map(|column| value(column)).collect();
        const NAME: &str = "archive_ext_corrected";
        let name = format!("pg_temp.{NAME}");
        let create = format!(
            "CREATE TEMP TABLE {NAME} (LIKE {} INCLUDING CONSTRAINTS INCLUDING GENERATED) ON COMMIT DROP",
            table.qualified()
        );
        let insert = format!(
            "INSERT INTO {name} ({}) SELECT {} FROM {from} AS {alias} WHERE {alias}.ctid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.tid[])",
            names.join(", "),
            values.join(", "),
        );
        user::own_sql(user::current(), || {
            spi::execute(&create, &[])?;
            spi::execute(&insert, &[places.to_vec().into()])
        })?;
        xact::command_counter_increment();
        let oid =
            spi::one("SELECT $1::pg_catalog.regclass::pg_catalog.oid", &[name.as_str().into()], |row| row.need(1))?;
        Ok(Self { table: oid, name, source: table.oid, rows: places.len() as u64 })
    }

    /// No row may leave its partition: it would be sought elsewhere.
    fn check_bounds(&self, touched: &Touched) -> Result<()> {
        let Some(known) = catalog::partition::by_id(touched.subject.id)? else { return Ok(()) };
        let condition = restore::bounds_condition(&known)?;
        let query = format!("SELECT EXISTS (SELECT FROM {} WHERE ({condition}) IS NOT TRUE)", self.name);
        if !user::own_sql(user::current(), || spi::one(&query, &[], |row| row.need::<bool>(1)))? {
            return Ok(());
        }
        Err(Error::new(
            SqlState::ERRCODE_CHECK_VIOLATION,
            format!("a corrected row would leave archived partition \"{}\"", touched.subject.name),
        )
        .hint("Nothing was changed. Reattach the partition, and let an UPDATE move the row."))
    }

    /// Writes the rows as `archived` has them.
    fn write(
        &self,
        archived: &ExportSource,
        store: &BlockingStore,
        objects: &Objects,
        key: &dyn Fn(u32) -> String,
    ) -> Result<export::Exported> {
        let source = ExportSource::open(self.table, self.source, LockMode::AccessShare)?;
        if source.schema != archived.schema {
            return Err(Error::new(
                SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
                "rows that match were archived with other columns than the table has now",
            )
            .hint("Nothing was changed. Reattach the partition, correct it there, and archive it again."));
        }
        let written = export::export_objects(&source, objects, store, key)?;
        let count = written.objects.iter().map(|object| object.rows).sum::<u64>();
        if count == self.rows {
            return Ok(written);
        }
        Err(Error::new(
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("{} rows match, and {count} of them could be read again", self.rows),
        )
        .detail("Row-level security, or a change of the archive meanwhile, hides the others.")
        .hint("Nothing was changed. Run it again."))
    }

    fn forget(self) -> Result<()> {
        user::own_sql(user::current(), || spi::execute(&format!("DROP TABLE {}", self.name), &[])).map(drop)
    }
}
