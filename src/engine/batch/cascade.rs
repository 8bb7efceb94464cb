//! Rows that reference the rows of a batch, archived with them: all that is reached by foreign keys, through any number of tables, circles
//! included.

use std::collections::HashSet;

use pgrx::pg_sys;
use pgrx::spi::quote_identifier;

use super::plan::{Locked, Plan, Referenced, Request};
use super::references::REFERENCED;
use super::select::{self, Chosen};
use crate::error::{Error, Result, SqlState};
use crate::partition::{locks, swap};
use crate::pg::relation::LockMode;
use crate::pg::{interrupts, spi, user};

/// Rows of one table that go with a batch.
#[derive(Debug)]
pub struct Kin {
    /// The table.
    pub plan: Plan,
    /// Its rows, which this transaction has locked.
    pub rows: Vec<Chosen>,
}

/// Rows that one batch takes along at most.
const MOST: usize = 500_000;

/// The rows of other tables that reference `chosen`, or rows that do; rows of the table itself are added to `chosen`. All are locked.
///
/// Errors: those of archiving rows of the other tables, 54000 when they are more than half a million, 55P03 when others have locked
/// one of them for longer than `archive_ext.lock_timeout`.
pub fn kin(plan: &Plan, chosen: &mut Vec<Chosen>) -> Result<Vec<Kin>> {
    if plan.request.referenced != Referenced::Cascade || plan.references.is_empty() {
        return Ok(Vec::new());
    }
    let mut family = Family { seen: chosen.iter().map(Chosen::address).collect(), others: Vec::new() };
    // Rows whose references are still to be looked for: of the table itself, or of one of the others.
    let mut waiting = vec![(None, chosen.clone())];
    while let Some((at, rows)) = waiting.pop() {
        interrupts::check();
        failpoint!("cascade_looks");
        for (number, found) in family.referencing(plan, at, &rows)? {
            match number {
                None => chosen.extend(found.iter().cloned()),
                Some(other) => family.others[other].rows.extend(found.iter().cloned()),
            }
            waiting.push((number, found));
        }
    }
    Ok(family.others)
}

struct Family {
    seen: HashSet<(u32, String)>,
    others: Vec<Kin>,
}

/// A table of the family: `None` is the batch's own.
type Member = Option<usize>;

impl Family {
    /// The rows that reference `rows` of a member and are not known yet, by member.
    fn referencing(&mut self, own: &Plan, at: Member, rows: &[Chosen]) -> Result<Vec<(Member, Vec<Chosen>)>> {
        let parent = self.plan(own, at);
        let references: Vec<_> = parent.references.iter().map(|one| (one.relation, one.matches.clone())).collect();
        let name = parent.table.qualified();
        let mut all = Vec::new();
        for (relation, matches) in references {
            let member = self.member(own, relation)?;
            let child = self.plan(own, member);
            let mut found = Vec::new();
            for (storing, places) in select::places(rows) {
                found.extend(locked(child, &name, storing, places, &matches)?);
            }
            found.retain(|row| self.seen.insert(row.address()));
            if self.seen.len() > MOST {
                return Err(too_many(own));
            }
            if !found.is_empty() {
                all.push((member, found));
            }
        }
        Ok(all)
    }

    fn plan<'a>(&'a self, own: &'a Plan, at: Member) -> &'a Plan {
        at.and_then(|at| self.others.get(at)).map_or(own, |kin| &kin.plan)
    }

    /// The member that a table is; a new one at its first row.
    fn member(&mut self, own: &Plan, table: pg_sys::Oid) -> Result<Member> {
        if table == own.table.oid {
            return Ok(None);
        }
        if let Some(at) = self.others.iter().position(|kin| kin.plan.table.oid == table) {
            return Ok(Some(at));
        }
        let request = Request {
            storage: Some(own.storage.clone()),
            format: Some(own.format),
            batch_bytes: own.request.batch_bytes,
            locked: Locked::Wait,
            referenced: Referenced::Cascade,
            ..Request::of_clause(table, None)
        };
        let plan = Plan::of(&request).map_err(|error| of_child(error, own))?;
        locks::acquire(table, &plan.table.qualified(), LockMode::RowExclusive)?;
        locks::claim_partition(&plan.table.qualified())?;
        self.others.push(Kin { plan, rows: Vec::new() });
        Ok(Some(self.others.len() - 1))
    }
}

fn of_child(error: Error, own: &Plan) -> Error {
    let name = own.table.qualified();
    match error.detail_text() {
        Some(_) => error,
        None => error.detail(format!("Its rows reference those of \"{name}\", and would be archived with them.")),
    }
}

fn too_many(own: &Plan) -> Error {
    Error::new(
        SqlState::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        format!("more than {MOST} rows reference one batch of \"{}\"", own.table.qualified()),
    )
    .hint("Make batch_rows smaller.")
}

/// The rows of `child` that reference the rows of `parent` at `places`, locked.
fn locked(child: &Plan, parent: &str, storing: u32, places: Vec<String>, matches: &str) -> Result<Vec<Chosen>> {
    let alias = quote_identifier(&child.table.name);
    let key: Vec<_> = child.key.iter().map(|key| format!("{alias}.{}", quote_identifier(&key.name))).collect();
    let remnant = child.marker.as_ref().map_or_else(|| "false".to_owned(), |marker| marker.remnant(&alias));
    let chosen = select::places_and_keys(&child.table, &key, "NULL", &[remnant]);
    let query = format!(
        "{chosen} WHERE EXISTS (SELECT FROM {parent} AS {REFERENCED} WHERE {REFERENCED}.ctid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.tid[]) \
         AND {REFERENCED}.tableoid OPERATOR(pg_catalog.=) {storing}::pg_catalog.oid AND {matches}) FOR UPDATE OF {alias}"
    );
    let _settings = select::plain_keys(swap::patient());
    let is_remnant = |row: &spi::Row<'_>| Ok((select::chosen(row)?, row.need::<bool>(5)?));
    let found = user::own_sql(user::current(), || spi::writing_rows(&query, &[places.into()], is_remnant))?;
    if found.iter().any(|(_, remnant)| *remnant) {
        return Err(remnants(child));
    }
    Ok(found.into_iter().map(|(row, _)| row).collect())
}

/// What stays of archived rows is not archived again.
fn remnants(child: &Plan) -> Error {
    let name = child.table.qualified();
    Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("rows of \"{name}\" that would be archived, too, are in the archive already"),
    )
    .detail("They were marked, or left stubs.")
    .hint("purge_marked deletes marked rows; DELETE stubs whose parents are to go, or bring them back by restore_rows.")
}
