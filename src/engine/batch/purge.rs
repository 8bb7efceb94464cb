//! Deleting marked rows: those of which the archive holds exactly what the table does.

use pgrx::pg_sys;
use pgrx::spi::{quote_identifier, quote_literal};
use serde_json::json;

use super::columns::{self, KeyColumn};
use super::plan;
use super::references::{self, Reference};
use super::select::{self, Chosen};
use crate::catalog;
use crate::catalog::remnant::{self, Kind, Marker};
use crate::error::{Error, Result, SqlState};
use crate::partition::discover::{self, Leaf};
use crate::partition::{check, locks, swap};
use crate::pg::guc::GucNest;
use crate::pg::relation::LockMode;
use crate::pg::{interrupts, spi, user};

/// Rows that are compared with the archive at once.
const BATCH_ROWS: i64 = 5_000;

/// A table with marked rows.
struct Purge {
    table: Leaf,
    marker: Marker,
    key: Vec<KeyColumn>,
    references: Vec<Reference>,
    /// The archive, qualified.
    archive: String,
}

/// What one purge did.
#[derive(Debug, Default)]
pub struct Purged {
    /// Rows that are gone.
    pub rows: u64,
    /// Rows that stay, as the archive holds them otherwise or not at all.
    pub differing: u64,
}

/// Deletes up to `max_rows` marked rows, compared with the archive value by value; those that others reference or have locked stay.
///
/// Locks: ROW EXCLUSIVE on the table, FOR UPDATE on the rows. Errors: 55000 for tables without marked rows, 42501 for those of
/// others.
pub fn purge(source: pg_sys::Oid, max_rows: i64) -> Result<Purged> {
    check::transaction("deleting marked rows")?;
    if max_rows < 1 {
        return Err(Error::new(SqlState::ERRCODE_INVALID_PARAMETER_VALUE, "max_rows must be at least 1"));
    }
    locks::acquire(source, &catalog::qualified_name(source)?, LockMode::RowExclusive)?;
    let purge = Purge::of(source)?;
    locks::claim_partition(&purge.table.qualified())?;
    let (mut purged, mut behind) = (Purged::default(), None);
    while i64::try_from(purged.rows).unwrap_or(i64::MAX) < max_rows {
        interrupts::check();
        let wanted = BATCH_ROWS.min(max_rows - i64::try_from(purged.rows).unwrap_or(0));
        let chosen = purge.next(behind.as_deref(), wanted)?;
        let Some(last) = chosen.last().map(|row| row.key.clone()) else { break };
        let free = purge.without_referenced(chosen)?;
        let gone = purge.delete(&free)?;
        purged.rows += gone;
        purged.differing += free.len() as u64 - gone;
        behind = Some(last);
    }
    purge.record(&purged)?;
    Ok(purged)
}

impl Purge {
    fn of(source: pg_sys::Oid) -> Result<Self> {
        let table = plan::table(source, false)?;
        let none = || {
            Error::new(
                SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("no rows of \"{}\" are marked as archived", table.qualified()),
            )
            .hint("archive_table(…, mode => 'mark') marks them.")
        };
        let marker = remnant::of(source)?.filter(|marker| marker.kind == Kind::Marked).ok_or_else(none)?;
        let archive = catalog::managed_table::of_source(source)?.and_then(|managed| managed.archive_table);
        let archive = catalog::qualified_name(archive.ok_or_else(none)?)?;
        let (key, references) = (columns::key(&table, None)?, references::to(&table)?);
        Ok(Self { table, marker, key, references, archive })
    }

    fn column(&self, name: &str) -> String {
        format!("{}.{}", quote_identifier(&self.table.name), quote_identifier(name))
    }

    /// The next marked rows in the order of the key, locked.
    fn next(&self, behind: Option<&[String]>, rows: i64) -> Result<Vec<Chosen>> {
        let alias = quote_identifier(&self.table.name);
        let key: Vec<_> = self.key.iter().map(|key| self.column(&key.name)).collect();
        let mut conditions = vec![self.marker.remnant(&alias)];
        conditions.extend(select::behind(&self.key, &key, behind.unwrap_or_default()));
        conditions.extend(self.references.iter().map(Reference::absent));
        let query = format!(
            "{} WHERE {} ORDER BY {} LIMIT {rows} FOR UPDATE OF {alias} SKIP LOCKED",
            select::places_and_keys(&self.table, &key, "NULL", &[]),
            conditions.join(" AND "),
            key.join(", ")
        );
        let _settings = select::plain_keys(swap::patient());
        user::own_sql(user::current(), || spi::writing_rows(&query, &[], select::chosen))
    }

    fn without_referenced(&self, chosen: Vec<Chosen>) -> Result<Vec<Chosen>> {
        let referenced = select::referenced(&self.table, &self.references, &chosen)?;
        Ok(chosen.into_iter().filter(|row| !referenced.iter().any(|(_, place)| place == &row.address())).collect())
    }

    /// Deletes the rows of which the archive holds every value; how many those were.
    fn delete(&self, rows: &[Chosen]) -> Result<u64> {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(0) };
        let name = quote_identifier(&self.table.name);
        let same = self.same_values()?;
        let range = self.leading_range(first, last);
        let _settings = GucNest::lossless_text();
        let mut deleted = 0;
        for (relation, places) in select::places(rows) {
            let query = format!(
                "DELETE FROM {} USING {} AS archive_ext_a WHERE {name}.ctid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.tid[]) \
                 AND {name}.tableoid OPERATOR(pg_catalog.=) {relation}::pg_catalog.oid AND {range} AND {same} RETURNING 1",
                self.table.qualified(),
                self.archive
            );
            let gone = user::own_sql(user::current(), || {
                spi::writing_rows(&query, &[places.into()], |row| row.need::<i32>(1))
            })?;
            deleted += gone.len() as u64;
        }
        Ok(deleted)
    }

    /// The values of the key's first column between which the rows are: it spares reading other objects.
    fn leading_range(&self, first: &Chosen, last: &Chosen) -> String {
        let bound = |row: &Chosen, operator: &str| {
            let key = self.key.first().zip(row.key.first());
            key.map(|(key, text)| {
                let literal = quote_literal(text.as_str());
                format!("archive_ext_a.{} {operator} {literal}::{}", quote_identifier(&key.name), key.type_sql)
            })
        };
        let bounds: Vec<_> = [bound(first, ">="), bound(last, "<=")].into_iter().flatten().collect();
        if bounds.is_empty() { "true".to_owned() } else { bounds.join(" AND ") }
    }

    /// That a row and an archived one have the same key, and print the same but for the mark.
    fn same_values(&self) -> Result<String> {
        let keys = self.key.iter().map(|key| {
            let column = quote_identifier(&key.name);
            format!("archive_ext_a.{column} = {}", self.column(&key.name))
        });
        let attributes = discover::attributes(self.table.oid)?;
        let compared = attributes.iter().filter(|column| column.name != self.marker.column);
        let values = compared.map(|column| {
            let other = format!("archive_ext_a.{}", quote_identifier(&column.name));
            format!("{other}::pg_catalog.text IS NOT DISTINCT FROM {}::pg_catalog.text", self.column(&column.name))
        });
        Ok(keys.chain(values).collect::<Vec<_>>().join(" AND "))
    }

    fn record(&self, purged: &Purged) -> Result<()> {
        let table = self.table.qualified();
        if purged.differing > 0 {
            crate::pg::server_text::warning!(
                "{} marked rows of {table} stay: {} does not hold them as they are",
                purged.differing,
                self.archive
            );
        }
        if purged.rows == 0 {
            return Ok(());
        }
        let details = json!({ "rows": purged.rows });
        catalog::event::record(self.table.oid, &table, "purged", "ARCHIVED", None, details)
    }
}
