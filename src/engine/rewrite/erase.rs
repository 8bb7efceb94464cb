//! `erase_rows`: rows leave the table and its archive for good, by one transaction; what held them is deleted from the storage afterwards.

use archive_core::codec::Digest;
use archive_core::manifest::ManifestObject;
use archive_core::store::BlockingStore;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::spi::quote_identifier;
use pgrx::{Uuid, pg_sys};

use super::matched::{self, Matched, Touched};
use super::partition;
use super::purge;
use super::swap::{self, Rewritten};
use super::without;
use crate::catalog::erasure::{self, NewErasure};
use crate::catalog::queue;
use crate::catalog::{self, hold, managed_table, month_count};
use crate::engine::batch::time as time_column;
use crate::engine::{verification, where_clause};
use crate::error::{Error, Result, SqlState};
use crate::guc;
use crate::partition::discover::{self, Leaf};
use crate::partition::freeze;
use crate::partition::locks;
use crate::partition::remnant_guard::Lifted;
use crate::pg::guc::GucNest;
use crate::pg::relation::LockMode;
use crate::pg::{spi, user};

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The table.
    pub source: pg_sys::Oid,
    /// Which rows.
    pub clause: &'a str,
    /// Whether what held them is deleted as soon as nobody can need it, not after `archive_ext.garbage_retention`.
    pub at_once: bool,
    /// Why, for the receipt.
    pub reason: Option<&'a str>,
}

/// The receipt.
#[derive(Debug)]
pub struct Erased {
    /// Its number in `archive_ext.erasures`; `None` when no row matched.
    pub receipt: Option<i64>,
    /// Rows deleted from the table.
    pub deleted: u64,
    /// Rows that left the archive.
    pub erased: u64,
    /// Objects that held them.
    pub objects: u64,
    /// When these are deleted, at the earliest.
    pub delete_after: Option<TimestampWithTimeZone>,
}

/// What a change of the archive has written. Nothing names it before all of it is.
#[derive(Default)]
pub(super) struct Changed {
    pub(super) versions: Vec<partition::NewVersion>,
    pub(super) sets: Vec<ChangedSet>,
    /// Partitions that are not archived now, whose stored versions are given up.
    pub(super) disowned: Vec<i64>,
}

/// Objects of a row set that were written anew.
pub(super) struct ChangedSet {
    pub(super) set: i64,
    pub(super) storage: String,
    pub(super) store: BlockingStore,
    pub(super) step: (Uuid, u32),
    pub(super) rewritten: Rewritten,
}

impl Changed {
    /// Manifests and catalog; `now` is what the table is called.
    fn put_in_place(&mut self, now: &(String, String)) -> Result<()> {
        self.versions.iter_mut().try_for_each(partition::NewVersion::put_in_place)?;
        self.sets.iter().try_for_each(|one| swap::swap(one.set, &one.store, now, one.step, &one.rewritten))
    }

    /// Storages and objects that held the rows.
    fn gone(&self) -> Vec<(String, ManifestObject)> {
        let of_versions =
            self.versions.iter().flat_map(|version| with_storage(&version.subject.storage, &version.gone));
        let of_sets = self
            .sets
            .iter()
            .flat_map(|one| one.rewritten.gone.iter().map(|gone| (one.storage.clone(), gone.object.clone())));
        of_versions.chain(of_sets).collect()
    }

    /// Storages and objects in their place.
    fn come(&self) -> Vec<(String, ManifestObject)> {
        let of_versions = self.versions.iter().flat_map(|version| with_storage(&version.subject.storage, &version.new));
        let of_sets = self.sets.iter().flat_map(|one| with_storage(&one.storage, &one.rewritten.objects));
        of_versions.chain(of_sets).collect()
    }

    /// Digest of the rows as they were.
    fn left(&self) -> Digest {
        let mut left = Digest::default();
        self.versions.iter().for_each(|version| left.merge(&version.left));
        self.sets.iter().for_each(|one| left.merge(&one.rewritten.left));
        left
    }
}

fn with_storage<'a>(
    storage: &'a str,
    objects: &'a [ManifestObject],
) -> impl Iterator<Item = (String, ManifestObject)> + 'a {
    objects.iter().map(|object| (storage.to_owned(), object.clone()))
}

/// Erases rows from the table, with the caller's rights, and from its archive.
///
/// Locks: ROW EXCLUSIVE on the table, what DELETE locks; the partitions and row sets of which rows match, against other runs; ACCESS
/// EXCLUSIVE on local copies. Errors: those of `matched`, of the clause, of DELETE; 55000 when a local copy has other rows than its archive;
/// XX001 when an object is not what was archived, or what was written is not what is read back. Nothing is changed then.
pub fn erase(wish: &Wish<'_>) -> Result<Erased> {
    let table = matched::table(wish.source, "erasing rows")?;
    let matched = matched::find(&table, wish.clause)?;
    forgive(&table, &matched, wish.clause)?;
    let hot = delete_hot(&table, wish.clause)?;
    let deleted = hot.iter().map(|(_, rows)| rows).sum::<u64>();
    let mut changed = Changed::default();
    if deleted + matched.rows() > 0 {
        // Of partitions that came back, and of those that were merged or split, the storage has the rows still.
        let leaves: Vec<_> = hot.iter().map(|(leaf, _)| *leaf).collect();
        let archived: Vec<_> = matched.partitions.iter().map(|touched| touched.subject.id).collect();
        changed.disowned = erasure::disown(table.oid, &leaves, &archived)?;
        refuse_held(&changed.disowned)?;
    }
    for touched in &matched.partitions {
        delete_from_local_copy(&table, touched, wish.clause)?;
        changed.versions.push(partition::rewrite(&table, touched, None)?);
    }
    shrink_sets(&table, &matched, &mut changed)?;
    failpoint!("erase_rewritten");
    let erased = matched.rows();
    if deleted + erased == 0 {
        return Ok(Erased { receipt: None, deleted, erased, objects: 0, delete_after: None });
    }
    finish(wish, "erase", &table, (deleted, erased), &mut changed)
}

fn refuse_held(partitions: &[i64]) -> Result<()> {
    for id in partitions {
        let Some(reason) = hold::reasons(*id)? else { continue };
        let message = "what was archived of a partition of which rows match is under a legal hold";
        return Err(hold::refusal(message, &reason).hint(matched::END_THE_HOLD));
    }
    Ok(())
}

/// Puts what was written in its place, and leaves a receipt, an event, and the job that deletes what held the rows.
pub(super) fn finish(
    wish: &Wish<'_>,
    kind: &str,
    table: &Leaf,
    (deleted, erased): (u64, u64),
    changed: &mut Changed,
) -> Result<Erased> {
    changed.put_in_place(&(table.schema.clone(), table.name.clone()))?;
    failpoint!("erase_in_place");
    let (gone, new, left) = (changed.gone(), changed.come(), changed.left());
    compare_local_copies(changed)?;
    let of_versions = changed.versions.iter().map(|version| version.subject.id);
    let partitions: Vec<_> = of_versions.chain(changed.disowned.iter().copied()).collect();
    let sets: Vec<_> = changed.sets.iter().map(|one| one.set).collect();
    let retention = if wish.at_once { 0 } else { guc::garbage_retention_seconds() };
    let name = table.qualified();
    let (receipt, delete_after) = erasure::add(&NewErasure {
        kind,
        source: table.oid,
        table_name: &name,
        clause: wish.clause,
        reason: wish.reason,
        deleted,
        erased,
        digest: &left,
        gone: &gone,
        new: &new,
        partitions: &partitions,
        sets: &sets,
        retention_seconds: retention,
    })?;
    let details = serde_json::json!({
        "receipt": receipt, "rows_deleted": deleted, "rows_of_archive": erased, "objects": gone.len(), "reason": wish.reason,
    });
    let event = if kind == "erase" { "erased" } else { "corrected" };
    catalog::event::record(table.oid, &name, event, "ARCHIVED", None, details)?;
    if !gone.is_empty() || !partitions.is_empty() {
        purge::queue(table.oid, &name)?;
        queue::wake(table.oid, "erase")?;
    }
    let objects = gone.len() as u64;
    Ok(Erased { receipt: Some(receipt), deleted, erased, objects, delete_after: Some(delete_after) })
}

/// Deletes the rows from the table; from which of its partitions, and how many. Partitions at rest are guarded against everybody but us.
fn delete_hot(table: &Leaf, clause: &str) -> Result<Vec<(pg_sys::Oid, u64)>> {
    let name = table.qualified();
    let alias = quote_identifier(&table.name);
    let from = format!("{name} AS {alias}");
    where_clause::check(Some(clause), &from)?;
    let mut storing = discover::tree(table.oid)?;
    storing.push(table.oid);
    let _ours = Lifted::of(storing);
    let sql = format!(
        "WITH gone AS (DELETE FROM {from} WHERE {} RETURNING {alias}.tableoid)
         SELECT tableoid, pg_catalog.count(*) FROM gone GROUP BY tableoid",
        where_clause::condition(Some(clause))
    );
    user::own_sql(user::current(), || {
        spi::writing_rows(&sql, &[], |row| Ok((row.need::<pg_sys::Oid>(1)?, row.need::<i64>(2)?.unsigned_abs())))
    })
}

/// The same rows of a local copy: nobody reads it, and it comes back as it is.
fn delete_from_local_copy(table: &Leaf, touched: &Touched, clause: &str) -> Result<()> {
    let Some(local) = touched.subject.local_copy.map(discover::leaf).transpose()?.flatten() else { return Ok(()) };
    let name = local.qualified();
    locks::acquire(local.oid, &name, LockMode::AccessExclusive)?;
    let guarded = freeze::guarded_because(local.oid)?;
    freeze::lift_guards(local.oid, &name, local.owner)?;
    let alias = quote_identifier(&table.name);
    let sql = format!("DELETE FROM {name} AS {alias} WHERE {}", where_clause::condition(Some(clause)));
    let deleted = user::own_sql(user::current(), || spi::execute(&sql, &[]))?;
    if guarded.is_some() {
        freeze::guard(local.oid, &name, local.owner, freeze::Reason::ReadOnly)?;
    }
    if deleted == touched.places.len() as u64 {
        return Ok(());
    }
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("the local copy of \"{}\" has other rows than its archive", touched.subject.name),
    )
    .detail(format!("Of {name} {deleted} rows match, and {} of the archive.", touched.places.len() as u64))
    .hint("Nothing was changed. SELECT drop_local_copy(partition) compares both, and drops the local copy if they are equal."))
}

/// A local copy that has other rows than the archive now would bring them back (55000): the clause may be true for other rows each time.
fn compare_local_copies(changed: &Changed) -> Result<()> {
    for version in changed.versions.iter().filter(|version| version.subject.local_copy.is_some()) {
        let Some(difference) = verification::local_copy_differs(version.subject.id)? else { continue };
        return Err(Error::new(
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("the local copy of \"{}\" would have other rows than its archive", version.subject.name),
        )
        .detail(format!("{difference}."))
        .hint("Nothing was changed. SELECT drop_local_copy(partition) compares both, and drops the local copy if they are equal."));
    }
    Ok(())
}

/// Objects of row sets without the rows that match.
fn shrink_sets(table: &Leaf, matched: &Matched, changed: &mut Changed) -> Result<()> {
    let id = catalog::job::new_id()?;
    let sets = matched.sets.iter().filter(|shrinking| !shrinking.taken.is_empty());
    for (number, shrinking) in (1..).zip(sets) {
        let step = (id, number);
        let (store, rewritten) = without::rewrite(table, shrinking, step)?;
        let (set, storage) = (shrinking.set.id, shrinking.set.storage.clone());
        changed.sets.push(ChangedSet { set, storage, store, step, rewritten });
    }
    Ok(())
}

/// That rows are gone is explained, if the rows of months are counted.
fn forgive(table: &Leaf, matched: &Matched, clause: &str) -> Result<()> {
    if !month_count::any(table.oid)? {
        return Ok(());
    }
    let Ok(time) = time_column(table, None) else { return Ok(()) };
    let (alias, time) = (quote_identifier(&table.name), quote_identifier(&time));
    let condition = where_clause::condition(Some(clause));
    let archive = managed_table::of_source(table.oid)?.and_then(|managed| managed.archive_table);
    let archive = archive.filter(|_| matched.rows() > 0).map(catalog::qualified_name).transpose()?;
    let select = |relation: &str| {
        format!(
            "SELECT coalesce(pg_catalog.date_trunc('month', {alias}.{time}::pg_catalog.timestamptz)::pg_catalog.date, '-infinity') AS month \
             FROM {relation} AS {alias} WHERE {condition}"
        )
    };
    let selects: Vec<_> = std::iter::once(table.qualified()).chain(archive).map(|relation| select(&relation)).collect();
    let query = format!(
        "SELECT r.month::pg_catalog.text, pg_catalog.count(*) FROM ({}) r GROUP BY r.month",
        selects.join(" UNION ALL ")
    );
    let _settings = GucNest::new().set(c"timezone", "UTC").set(c"datestyle", "ISO");
    let months = user::own_sql(user::current(), || {
        spi::writing_rows(&query, &[], |row| Ok((row.need::<String>(1)?, row.need::<i64>(2)?)))
    })?;
    month_count::forgive(table.oid, &months)
}
