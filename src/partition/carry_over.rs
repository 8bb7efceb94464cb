//! What partitions have of their own and the table that takes their place should have too.

use archive_core::manifest::{Ddl, NamedDdl};
use pgrx::pg_sys;

use super::ddl;
use super::discover::Leaf;
use crate::catalog;
use crate::error::{Error, Result, SqlState};
use crate::pg::{spi, user};

/// Gives `table` what all of `sources` have: grants, comments, triggers, indexes and storage parameters. What only some have
/// is left out and named in a notice, since it would not be right for the rows of the others. Runs with the owner's rights.
pub fn carry_over(sources: &[Leaf], table: pg_sys::Oid, owner: pg_sys::Oid) -> Result<()> {
    let name = catalog::qualified_name(table)?;
    let recorded = sources.iter().map(|source| own(source, &name)).collect::<Result<Vec<_>>>()?;
    let Some((first, others)) = recorded.split_first() else { return Ok(()) };
    let common: Vec<_> =
        first.iter().filter(|sql| others.iter().all(|other| other.contains(sql))).map(String::as_str).collect();
    user::as_user(owner, || common.iter().try_for_each(|sql| spi::execute(sql, &[]).map(drop)))?;
    let mut left: Vec<_> = recorded.iter().flatten().filter(|sql| !common.contains(&sql.as_str())).collect();
    left.sort_unstable();
    left.dedup();
    for sql in left {
        crate::pg::server_text::notice!("not carried over, for not all of the partitions have it: {sql}");
    }
    Ok(())
}

/// Refuses partitions whose row security differs: the rows of one would be shown by the policies of another (0A000).
pub fn check_row_security(sources: &[Leaf]) -> Result<()> {
    let policies = sources.iter().map(|source| Ok(recorded(source, "t")?.policies)).collect::<Result<Vec<_>>>()?;
    let differs = policies.iter().zip(sources).find(|(own, _)| **own != policies[0]);
    let Some((_, source)) = differs else { return Ok(()) };
    Err(Error::new(
        SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("\"{}\" and \"{}\" have different row-level security", sources[0].qualified(), source.qualified()),
    )
    .hint("Give all of them the same policies, then merge them."))
}

fn recorded(source: &Leaf, name: &str) -> Result<Ddl> {
    user::elevated(|| ddl::of_table(source.oid, name, source.owner))
}

/// The source's own statements with the new table's name in them.
fn own(source: &Leaf, name: &str) -> Result<Vec<String>> {
    let ddl = recorded(source, name)?;
    let mut statements = ddl.storage_parameters;
    statements.extend(ddl.indexes.iter().filter_map(|index| index_on(index, source, name)));
    statements.extend(ddl.triggers.iter().map(|trigger| trigger.sql.replacen(&on(source), &format!(" ON {name} "), 1)));
    statements.extend(ddl.policies);
    statements.extend(ddl.comments.into_iter().filter(|sql| is_about_table(sql)));
    statements.extend(ddl.grants);
    // Those that belong to an index of the parent come with the attachment.
    let of_parent = of_parent(source.oid)?;
    statements.retain(|sql| !of_parent.iter().any(|index| sql.contains(index.as_str())));
    Ok(statements)
}

fn on(source: &Leaf) -> String {
    format!(" ON {} ", source.qualified())
}

fn is_about_table(comment: &str) -> bool {
    comment.starts_with("COMMENT ON TABLE")
        || comment.starts_with("COMMENT ON COLUMN")
        || comment.starts_with("COMMENT ON TRIGGER")
}

/// The index under a name that PostgreSQL chooses; `None` for a part of an index of the parent.
fn index_on(index: &NamedDdl, source: &Leaf, name: &str) -> Option<String> {
    let (head, tail) = index.sql.split_once(&on(source))?;
    let unique = if head.starts_with("CREATE UNIQUE") { "UNIQUE " } else { "" };
    Some(format!("CREATE {unique}INDEX ON {name} {tail}"))
}

/// The tails of index definitions that are parts of an index of the parent.
fn of_parent(table: pg_sys::Oid) -> Result<Vec<String>> {
    user::elevated(|| {
        spi::rows(
            "SELECT substring(pg_get_indexdef(i.indexrelid) from ' (USING .*)$')
             FROM pg_index i JOIN pg_inherits h ON h.inhrelid = i.indexrelid WHERE i.indrelid = $1",
            &[table.into()],
            |row| row.need(1),
        )
    })
}

/// Gives `table` the foreign keys of `parent`, so that ATTACH has none to check under the parent's lock.
pub fn adopt_foreign_keys(parent: pg_sys::Oid, table: pg_sys::Oid, owner: pg_sys::Oid) -> Result<()> {
    let name = catalog::qualified_name(table)?;
    let keys: Vec<String> = user::elevated(|| {
        spi::rows(
            "SELECT format('ALTER TABLE %s ADD CONSTRAINT %I %s', $2, k.conname, pg_get_constraintdef(k.oid))
             FROM pg_constraint k
             WHERE k.conrelid = $1 AND k.contype = 'f'
               AND NOT EXISTS (SELECT FROM pg_constraint up WHERE up.oid = k.conparentid AND up.conrelid = k.conrelid)
             ORDER BY k.oid",
            &[parent.into(), name.as_str().into()],
            |row| row.need(1),
        )
    })?;
    user::as_user(owner, || keys.iter().try_for_each(|sql| spi::execute(sql, &[]).map(drop)))
}

/// Views and the like that need one of the tables, which is to be dropped.
pub fn dependents(tables: &[pg_sys::Oid]) -> Result<Vec<String>> {
    user::elevated(|| {
        spi::rows(
            "SELECT DISTINCT pg_describe_object('pg_class'::regclass, r.ev_class, 0)
             FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
             WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY ($1) ORDER BY 1",
            &[tables.to_vec().into()],
            |row| row.need(1),
        )
    })
}
