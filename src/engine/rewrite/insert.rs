//! The rows that match, from the archive into the table: the caller's SQL, with the caller's rights.

use pgrx::pg_sys;
use pgrx::spi::quote_identifier;

use super::request;
use super::restore::{Conflict, Shrinking};
use crate::catalog;
use crate::catalog::remnant::{self, Marker};
use crate::engine::where_clause;
use crate::error::{Error, Result, SqlState};
use crate::partition::discover::{self, Attribute, Leaf};
use crate::partition::remnant_guard::Lifted;
use crate::pg::move_rows::{Origin, Put, move_rows};
use crate::pg::{spi, user};

/// How many rows went where.
#[derive(Debug, Default)]
pub struct Moved {
    /// Rows that are in the table now.
    pub restored: u64,
    /// Rows that stay in the archive, because the table has rows with their keys.
    pub skipped: u64,
}

/// What inserts the rows.
pub struct Insertion {
    name: String,
    /// Name of the table, quoted, by which the clause may call the archive.
    alias: String,
    /// `archive.<table>` under that name.
    from: String,
    condition: String,
    /// Columns that are inserted: all that are not generated.
    columns: Vec<Attribute>,
    /// The columns of the key, quoted.
    key: Vec<String>,
    conflict: Conflict,
    on_conflict: String,
    /// Where what stays of archived rows is in the table: it becomes the row again.
    marker: Option<Marker>,
    /// The tables that store rows.
    storing: Vec<pg_sys::Oid>,
}

impl Insertion {
    /// Checks the clause and everything that can be known before a row is read.
    ///
    /// Errors: those of the clause; to replace, 55000 for a table without a key, 0A000 for one with identity values that cannot be.
    pub fn new(
        table: &Leaf,
        archive: pg_sys::Oid,
        clause: &str,
        conflict: Conflict,
        sets: &[Shrinking],
    ) -> Result<Self> {
        let alias = quote_identifier(&table.name).to_string();
        let from = format!("{} AS {alias}", catalog::qualified_name(archive)?);
        where_clause::check(Some(clause), &from)?;
        let columns: Vec<_> =
            discover::attributes(table.oid)?.into_iter().filter(|column| column.generated.is_empty()).collect();
        let key: Vec<_> = request::key(table)?.iter().map(|key| quote_identifier(&key.name).to_string()).collect();
        let marker = remnant::of(table.oid)?;
        let on_conflict = match (conflict, &marker) {
            (Conflict::Replace, _) => replacing(table, &columns, &key)?,
            (_, Some(marker)) => format!("{} WHERE {}", replacing(table, &columns, &key)?, marker.remnant(&alias)),
            (Conflict::Error, None) => String::new(),
            (Conflict::Skip, None) => " ON CONFLICT DO NOTHING".to_owned(),
        };
        let mut storing = if marker.is_some() { discover::tree(table.oid)? } else { Vec::new() };
        storing.push(table.oid);
        let condition = format!("{} AND {}", of_sets(table, sets), where_clause::condition(Some(clause)));
        let name = table.qualified();
        Ok(Self { name, alias, from, condition, columns, key, conflict, on_conflict, marker, storing })
    }

    /// Inserts the rows, and takes those that are in the table now from the archive's.
    pub fn run(&self, sets: &mut [Shrinking]) -> Result<Moved> {
        self.refuse_two_of_one_key()?;
        self.refuse_marked()?;
        let (query, insert) = self.statements();
        let types: Vec<_> = self.columns.iter().map(|column| column.type_oid).collect();
        let mut moved = Moved::default();
        let _ours = self.marker.is_some().then(|| Lifted::of(self.storing.clone()));
        user::own_sql(user::current(), || {
            move_rows(&query, &insert, &types, |origin, put| self.note(&mut moved, sets, origin, put))
        })?;
        Ok(moved)
    }

    fn statements(&self) -> (String, String) {
        let columns: Vec<_> = self.columns.iter().map(|column| quote_identifier(&column.name).to_string()).collect();
        let archived = |column: &str| columns.iter().map(|name| format!(", {column}{name}")).collect::<String>();
        let alias = &self.alias;
        let places: Vec<_> = (1..=columns.len()).map(|number| format!("${number}")).collect();
        (
            format!(
                "SELECT {alias}.tableoid, {alias}.ctid{} FROM {} WHERE {}",
                archived(&format!("{alias}.")),
                self.from,
                self.condition
            ),
            format!(
                "INSERT INTO {} AS {alias} ({}) OVERRIDING SYSTEM VALUE VALUES ({}){}{}",
                self.name,
                columns.join(", "),
                places.join(", "),
                self.on_conflict,
                self.returning(&columns, &places)
            ),
        )
    }

    /// Whether the row has what was archived: a trigger on UPDATE may keep the values that were there.
    fn returning(&self, columns: &[String], places: &[String]) -> String {
        let alias = &self.alias;
        let pairs = || columns.iter().zip(places);
        let tests: Vec<_> = match (&self.marker, self.conflict) {
            (_, Conflict::Replace) => pairs()
                .map(|(column, place)| {
                    format!("{alias}.{column}::pg_catalog.text IS NOT DISTINCT FROM {place}::pg_catalog.text")
                })
                .collect(),
            (Some(marker), _) => std::iter::once(marker.live(alias))
                .chain(pairs().map(|(column, place)| format!("({place} IS NULL OR {alias}.{column} IS NOT NULL)")))
                .collect(),
            (None, _) => return String::new(),
        };
        format!(" RETURNING {}", tests.join(" AND "))
    }

    fn note(&self, moved: &mut Moved, sets: &mut [Shrinking], origin: Origin, put: Put) -> Result<()> {
        let rows = put.rows;
        if rows > 0 && !put.as_wanted {
            return Err(self.changed_by_trigger());
        }
        if rows == 0 && self.conflict == Conflict::Skip {
            moved.skipped += 1;
            return Ok(());
        }
        if rows == 0 {
            return Err(if self.marker.is_some() { self.key_is_taken() } else { self.kept_out() });
        }
        moved.restored += 1;
        let set = sets.iter_mut().find(|shrinking| shrinking.set.foreign_table == Some(origin.relation));
        match set.is_some_and(|shrinking| shrinking.taken.take(origin.place.number())) {
            true => Ok(()),
            false => Err(Error::new(
                SqlState::ERRCODE_INTERNAL_ERROR,
                format!("a row of relation {} is in no object of the archive", origin.relation.to_u32()),
            )),
        }
    }

    fn kept_out(&self) -> Error {
        Error::new(
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("an archived row was not inserted into \"{}\"", self.name),
        )
        .detail("A BEFORE INSERT trigger or a rule kept it out. Nothing was changed.")
        .hint("Leave such rows out by the where_clause, or disable the trigger.")
    }

    fn changed_by_trigger(&self) -> Error {
        Error::new(
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("a row of \"{}\" did not get its archived values", self.name),
        )
        .detail("A BEFORE trigger put others in their place. Nothing was changed.")
        .hint("Disable the trigger while rows are restored.")
    }

    /// Rows that were archived with a marker of the application's would be taken for remnants.
    fn refuse_marked(&self) -> Result<()> {
        let Some(marker) = &self.marker else { return Ok(()) };
        let (from, condition) = (&self.from, &self.condition);
        let query = format!("SELECT EXISTS (SELECT FROM {from} WHERE {condition} AND {})", marker.remnant(&self.alias));
        if !user::own_sql(user::current(), || spi::writing_rows(&query, &[], |row| row.need::<bool>(1)))?
            .contains(&true)
        {
            return Ok(());
        }
        let message =
            format!("archived rows of \"{}\" that match have \"{}\" set themselves", self.name, marker.column);
        Err(Error::new(SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message)
            .detail("In the table it says that a row is in the archive.")
            .hint("Leave them out by the where_clause, or restore and purge all marked rows and SELECT forget_marker(table) first."))
    }

    /// Where remnants become rows again, rows with the same key that are no remnants are found by the statement itself.
    fn key_is_taken(&self) -> Error {
        let message = format!("\"{}\" has rows with keys of archived rows that match", self.name);
        Error::new(SqlState::ERRCODE_UNIQUE_VIOLATION, message)
            .detail("Or a BEFORE trigger or a rule kept such a row out. Nothing was changed.")
            .hint("on_conflict => 'skip' leaves such rows in the archive, 'replace' gives the table their values.")
    }

    /// Two archived rows with one key cannot both replace the row that has it: one of them would be lost (21000).
    fn refuse_two_of_one_key(&self) -> Result<()> {
        if self.conflict != Conflict::Replace {
            return Ok(());
        }
        let key = self.key.join(", ");
        let query = format!(
            "SELECT pg_catalog.concat_ws(', ', {key}) FROM {} WHERE {} GROUP BY {key} HAVING pg_catalog.count(*) > 1 LIMIT 1",
            self.from, self.condition
        );
        let twice = user::own_sql(user::current(), || spi::writing_rows(&query, &[], |row| row.need::<String>(1)))?;
        let Some(twice) = twice.into_iter().next() else { return Ok(()) };
        let message = format!("several archived rows of \"{}\" that match have the same key", self.name);
        Err(Error::new(SqlState::ERRCODE_CARDINALITY_VIOLATION, message)
            .detail(format!("Key ({}) = ({twice}).", self.key.join(", ")))
            .hint("Leave all but one of them out by the where_clause; on_conflict => 'skip' restores one."))
    }
}

/// That a row of the archive is one of a row set: partitions that were archived as a whole come back as a whole.
fn of_sets(table: &Leaf, sets: &[Shrinking]) -> String {
    let alias = quote_identifier(&table.name);
    let tables: Vec<_> = sets.iter().filter_map(|one| Some(one.set.foreign_table?.to_u32().to_string())).collect();
    match table.kind == 'p' {
        true => format!("{alias}.tableoid OPERATOR(pg_catalog.=) ANY ('{{{}}}'::pg_catalog.oid[])", tables.join(",")),
        false => "true".to_owned(),
    }
}

/// `ON CONFLICT` with an update of everything.
fn replacing(table: &Leaf, columns: &[Attribute], key: &[String]) -> Result<String> {
    let name = table.qualified();
    if key.is_empty() {
        return Err(Error::new(
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("rows of \"{name}\" cannot be replaced: it has no unique key"),
        )
        .hint("Restore with on_conflict => 'error' or 'skip'."));
    }
    let quoted = columns.iter().map(|column| quote_identifier(&column.name).to_string());
    let others: Vec<_> = quoted.filter(|column| !key.contains(column)).collect();
    let fixed = always_identity(table.oid)?;
    if let Some(column) = fixed.iter().find(|column| others.contains(column)) {
        return Err(Error::new(
            SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("rows of \"{name}\" cannot be replaced: column {column} is GENERATED ALWAYS AS IDENTITY"),
        )
        .hint(format!(
            "ALTER TABLE {name} ALTER COLUMN {column} SET GENERATED BY DEFAULT, or delete these rows first."
        )));
    }
    // The key as well: equal values may print differently.
    let set = columns
        .iter()
        .map(|column| quote_identifier(&column.name).to_string())
        .filter(|column| !fixed.contains(column));
    let updates: Vec<_> = set.map(|column| format!("{column} = EXCLUDED.{column}")).collect();
    if updates.is_empty() {
        return Err(Error::new(
            SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("rows of \"{name}\" cannot be replaced: all columns are GENERATED ALWAYS AS IDENTITY"),
        )
        .hint("Restore with on_conflict => 'error' or 'skip'."));
    }
    Ok(format!(" ON CONFLICT ({}) DO UPDATE SET {}", key.join(", "), updates.join(", ")))
}

/// Columns that an UPDATE cannot give a value, quoted.
fn always_identity(table: pg_sys::Oid) -> Result<Vec<String>> {
    user::elevated(|| {
        spi::rows(
            "SELECT quote_ident(attname) FROM pg_attribute
             WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND attidentity = 'a'",
            &[table.into()],
            |row| row.need(1),
        )
    })
}
