//! The archived rows that a clause is about: which they are, and whether their archive may be changed.

use std::collections::BTreeMap;

use archive_core::lifecycle::TakenRows;
use pgrx::pg_sys;
use pgrx::spi::quote_identifier;

use super::restore::Shrinking;
use crate::catalog::archived::{self, Subject};
use crate::catalog::managed_table;
use crate::catalog::{self, hold, remnant, rewrite, row_set};
use crate::engine::where_clause;
use crate::error::{Error, Result, SqlState};
use crate::partition::discover::{self, Leaf};
use crate::partition::{check, locks};
use crate::pg::relation::LockMode;
use crate::pg::tuple_id::TupleId;
use crate::pg::{spi, user};

/// What to do about a legal hold that a change has met.
pub(super) const END_THE_HOLD: &str =
    "Nothing was changed. An administrator ends the hold with legal_hold(partition, false).";

/// A partition of which rows match.
pub(super) struct Touched {
    pub(super) subject: Subject,
    pub(super) taken: TakenRows,
    /// Their places, as `ctid` prints them.
    pub(super) places: Vec<String>,
}

/// What matches of a table's archive.
#[derive(Default)]
pub(super) struct Matched {
    pub(super) partitions: Vec<Touched>,
    /// All row sets, locked; those of which nothing is taken are as they were.
    pub(super) sets: Vec<Shrinking>,
    /// Rows that match in row sets, by these: their places.
    pub(super) set_places: BTreeMap<i64, Vec<String>>,
}

impl Matched {
    /// Rows that match.
    pub(super) fn rows(&self) -> u64 {
        let in_partitions = self.partitions.iter().map(|touched| touched.places.len());
        in_partitions.chain(self.set_places.values().map(Vec::len)).sum::<usize>() as u64
    }
}

/// The table whose archive is changed.
///
/// Errors: 25001 in REPEATABLE READ and SERIALIZABLE, 42809 for what is no table of its own, 42501 for who may not act as the owner, 0A000
/// where archived rows left something in the table, 55006 when another session archives rows of it.
pub(super) fn table(source: pg_sys::Oid, verb: &str) -> Result<Leaf> {
    check::transaction(verb)?;
    let wrong = |state, message: String| Err(Error::new(state, message));
    let Some(table) = discover::leaf(source)? else {
        return wrong(
            SqlState::ERRCODE_UNDEFINED_TABLE,
            format!("relation with OID {} does not exist", source.to_u32()),
        );
    };
    let name = table.qualified();
    if table.root.is_some_and(|root| root != source) || !matches!(table.kind, 'r' | 'p') {
        let message = format!("\"{name}\" is no table of its own");
        return Err(Error::new(SqlState::ERRCODE_WRONG_OBJECT_TYPE, message)
            .hint("Name the table whose partitions or rows are archived."));
    }
    if !user::has_privileges_of(table.owner) {
        return wrong(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("must be owner of table {name}"));
    }
    if let Some(marker) = remnant::of(source)? {
        return Err(Error::new(
            SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("archived rows of \"{name}\" left something of them in the table"),
        )
        .detail(format!("Column \"{}\" says which rows these are.", marker.column))
        .hint(format!(
            "SELECT restore_rows('{name}', '…') brings them back; then change or DELETE them in the table."
        )));
    }
    locks::acquire(source, &name, LockMode::RowExclusive)?;
    // A swap locks the parent of its partition, not the root.
    for below in discover::partitioned_below(source)? {
        locks::acquire(below, &catalog::qualified_name(below)?, LockMode::RowExclusive)?;
    }
    locks::wait_for_partition(&name)?;
    Ok(table)
}

/// Finds the rows of the archive of `table` for which `clause` holds, with the caller's rights, and takes their partitions and row sets.
///
/// Errors: those of the clause; 55000 where a legal hold lasts, or what must be read is frozen; 55006 when another session archives or
/// reattaches such a partition, 40001 when it did meanwhile.
pub(super) fn find(table: &Leaf, clause: &str) -> Result<Matched> {
    let Some((managed, archive)) =
        managed_table::of_source(table.oid)?.and_then(|managed| Some((managed.id, managed.archive_table?)))
    else {
        return Ok(Matched::default());
    };
    let mut sets = row_set::lock_all(managed)?.into_iter().map(shrinking).collect::<Result<Vec<_>>>()?;
    let alias = quote_identifier(&table.name);
    let from = format!("{} AS {alias}", catalog::qualified_name(archive)?);
    where_clause::check(Some(clause), &from)?;
    let condition = where_clause::condition(Some(clause));
    let query = format!("SELECT {alias}.tableoid, {alias}.ctid::pg_catalog.text FROM {from} WHERE {condition}");
    let places = user::own_sql(user::current(), || {
        spi::writing_rows(&query, &[], |row| Ok((row.need::<pg_sys::Oid>(1)?, row.need::<String>(2)?)))
    })?;
    let mut by_partition: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let mut set_places: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for (relation, place) in places {
        let number = TupleId::parse(&place).ok_or_else(|| nowhere(relation))?.number();
        match sets.iter_mut().find(|shrinking| shrinking.set.foreign_table == Some(relation)) {
            Some(shrinking) => {
                if !shrinking.taken.take(number) {
                    return Err(nowhere(relation));
                }
                set_places.entry(shrinking.set.id).or_default().push(place);
            }
            None => by_partition.entry(relation.to_u32()).or_default().push(place),
        }
    }
    let mut partitions = Vec::with_capacity(by_partition.len());
    for (relation, places) in by_partition {
        partitions.push(touched(relation.into(), places)?);
    }
    let matched = Matched { partitions, sets, set_places };
    refuse_held(&matched)?;
    Ok(matched)
}

pub(super) fn shrinking(set: row_set::RowSet) -> Result<Shrinking> {
    let sizes = rewrite::sizes(set.id)?;
    let taken = TakenRows::of_objects(sizes.iter().map(|(_, rows)| *rows));
    Ok(Shrinking { set, objects: sizes.into_iter().map(|(id, _)| id).collect(), taken })
}

/// The partition that this foreign table reads, and these rows of it. It is claimed only now that it is known: whoever archived it anew
/// meanwhile has given its rows other places.
fn touched(relation: pg_sys::Oid, places: Vec<String>) -> Result<Touched> {
    let seen = archived::of_relation(relation)?.into_iter().next().ok_or_else(|| nowhere(relation))?;
    locks::claim_partition(&seen.name)?;
    let same = |now: &Subject| now.version == seen.version && now.foreign_table == seen.foreign_table;
    let Some(subject) = archived::find(seen.id)?.filter(same) else {
        return Err(Error::new(
            SqlState::ERRCODE_T_R_SERIALIZATION_FAILURE,
            format!("another session has changed the archive of \"{}\" meanwhile", seen.name),
        )
        .hint("Nothing was changed. Run it again."));
    };
    let objects = archived::objects(&subject)?;
    let mut taken = TakenRows::of_objects(objects.iter().map(|stored| stored.object.rows));
    if !places.iter().all(|place| TupleId::parse(place).is_some_and(|place| taken.take(place.number()))) {
        return Err(nowhere(relation));
    }
    Ok(Touched { subject, taken, places })
}

fn refuse_held(matched: &Matched) -> Result<()> {
    let partitions = matched.partitions.iter().map(|touched| (touched.subject.id, touched.subject.name.clone()));
    let sets = matched.sets.iter().filter(|shrinking| !shrinking.taken.is_empty());
    let sets = sets.map(|shrinking| (shrinking.set.id, shrinking.set.name.clone()));
    for (id, name) in partitions.chain(sets) {
        let Some(reason) = hold::reasons(id)? else { continue };
        return Err(hold::refusal(format!("the archive of \"{name}\" is under a legal hold"), &reason)
            .detail(format!("Reason: {reason}. Rows of it match."))
            .hint(END_THE_HOLD));
    }
    Ok(())
}

fn nowhere(relation: pg_sys::Oid) -> Error {
    Error::new(
        SqlState::ERRCODE_INTERNAL_ERROR,
        format!("a row of relation {} is in no object of the archive", relation.to_u32()),
    )
}
