//! A table that is to be attached again gets the shape that its parent has now.

use pgrx::pg_sys;
use pgrx::spi::{quote_identifier, quote_literal};

use super::{discover, mirror};
use crate::catalog;
use crate::catalog::column_map::Fill;
use crate::error::{OrRaise, Result};
use crate::pg::guc::GucNest;
use crate::pg::{columns, spi, user, xact};
use crate::shape::Difference;

/// Whether ALTER TABLE can give a table these columns without rewriting it: a rewritten row is invisible to older
/// snapshots. A domain's constraints are checked by a rewrite.
pub fn fits_without_rewrite(differences: &[Difference], wanted: &[discover::Attribute]) -> bool {
    let checked = |name: &str| {
        let column = wanted.iter().find(|column| column.name == name);
        column.is_some_and(|column| columns::is_constrained_domain(column.type_oid))
    };
    differences.iter().all(|difference| match difference {
        Difference::Dropped(_) | Difference::Renamed(..) => true,
        Difference::Added(column) => {
            let constant = matches!(column.fill, Fill::None | Fill::Constant(_));
            column.types.len() == 1 && constant && !checked(&column.former_name)
        }
        Difference::Retyped(..) => false,
    })
}

/// Gives a local copy the columns of its parent. What differs fits without a rewrite.
pub fn local_copy(table: pg_sys::Oid, parent: pg_sys::Oid, differences: &[Difference]) -> Result<()> {
    let name = catalog::qualified_name(table)?;
    let (has, wanted) = (discover::attributes(table)?, discover::attributes(parent)?);
    let has = |column: &str| has.iter().any(|attribute| attribute.name == column);
    let (mut statements, mut renamed) = (Vec::new(), Vec::new());
    for difference in differences {
        match difference {
            Difference::Dropped(column) if has(column) => {
                statements.push(format!("ALTER TABLE {name} DROP COLUMN {}", quote_identifier(column)));
            }
            Difference::Renamed(from, to) if has(from) => renamed.push((from.clone(), to.clone())),
            _ => {}
        }
    }
    statements.extend(mirror::rename_columns("TABLE", &name, &renamed));
    for difference in differences {
        if let Difference::Added(column) = difference
            && let Some(now) = wanted.iter().find(|other| other.name == column.former_name)
        {
            statements.push(add_column(&name, now, &column.fill));
        }
    }
    execute(table, &statements)?;
    adopt_defaults(parent, table, differences)
}

fn add_column(table: &str, column: &discover::Attribute, fill: &Fill) -> String {
    let default = match fill {
        Fill::Constant(text) => format!(" DEFAULT {}::{}", quote_literal(text), column.type_sql),
        _ => String::new(),
    };
    format!("ALTER TABLE {table} ADD COLUMN {} {}{default}", quote_identifier(&column.name), column.full_type())
}

fn execute(table: pg_sys::Oid, statements: &[String]) -> Result<()> {
    let owner = discover::owner(table)?;
    user::as_user(owner, || {
        let _text = GucNest::lossless_text();
        statements.iter().try_for_each(|sql| spi::execute(sql, &[]).map(drop))
    })
}

/// Added columns have the parent's default from now on.
pub fn adopt_defaults(parent: pg_sys::Oid, table: pg_sys::Oid, differences: &[Difference]) -> Result<()> {
    let name = catalog::qualified_name(table)?;
    let defaults = defaults(parent)?;
    let added = differences.iter().filter_map(|difference| match difference {
        Difference::Added(column) if column.fill != Fill::Generated => Some(&column.former_name),
        _ => None,
    });
    let statements: Vec<_> = added
        .map(|column| {
            let action = defaults
                .iter()
                .find(|(of, _)| of == column)
                .map_or_else(|| "DROP DEFAULT".to_owned(), |(_, default)| format!("SET DEFAULT {default}"));
            format!("ALTER TABLE {name} ALTER COLUMN {} {action}", quote_identifier(column))
        })
        .collect();
    execute(table, &statements)
}

fn defaults(table: pg_sys::Oid) -> Result<Vec<(String, String)>> {
    user::elevated(|| {
        spi::rows(
            "SELECT a.attname::text, pg_get_expr(d.adbin, d.adrelid) FROM pg_attribute a
             JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
             WHERE a.attrelid = $1 AND NOT a.attisdropped AND a.attgenerated = ''",
            &[table.into()],
            |row| Ok((row.need(1)?, row.need(2)?)),
        )
    })
}

/// Gives `table` the NOT NULLs and CHECKs of its parent that it lacks, also where it has another CHECK of that name: ATTACH
/// wants them. Rows that violate one raise
/// PostgreSQL's own error.
pub fn adopt_constraints(parent: pg_sys::Oid, table: pg_sys::Oid) -> Result<()> {
    let name = catalog::qualified_name(table)?;
    let has = discover::attributes(table)?;
    let lacks = |column: &discover::Attribute| has.iter().any(|other| other.name == column.name && !other.not_null);
    let mut statements: Vec<_> = discover::attributes(parent)?
        .iter()
        .filter(|column| column.not_null && lacks(column))
        .map(|column| format!("ALTER TABLE {name} ALTER COLUMN {} SET NOT NULL", quote_identifier(&column.name)))
        .collect();
    for (check, taken) in missing_checks(parent, table)? {
        let check_name = quote_identifier(&check.name);
        if taken {
            statements.push(format!("ALTER TABLE {name} DROP CONSTRAINT {check_name}"));
        }
        statements.push(format!("ALTER TABLE {name} ADD CONSTRAINT {check_name} {}", check.definition));
    }
    execute(table, &statements)
}

/// A CHECK of the parent.
struct Check {
    name: String,
    definition: String,
}

/// The CHECKs that ATTACH would not find, and whether another one has the name.
fn missing_checks(parent: pg_sys::Oid, table: pg_sys::Oid) -> Result<Vec<(Check, bool)>> {
    user::elevated(|| {
        spi::rows(
            "SELECT p.conname::text, pg_get_constraintdef(p.oid), c.oid IS NOT NULL
             FROM pg_constraint p
             LEFT JOIN pg_constraint c ON c.conrelid = $2 AND c.contype = 'c' AND c.conname = p.conname
             WHERE p.conrelid = $1 AND p.contype = 'c' AND NOT p.connoinherit
               AND (c.oid IS NULL OR c.connoinherit OR p.convalidated AND NOT c.convalidated
                    OR pg_get_expr(c.conbin, c.conrelid) <> pg_get_expr(p.conbin, p.conrelid))
             ORDER BY p.oid",
            &[parent.into(), table.into()],
            |row| Ok((Check { name: row.need(1)?, definition: row.need(2)? }, row.need(3)?)),
        )
    })
}

/// Lets columns hold NULL until [`adopt_constraints`] has looked at their rows.
pub fn allow_null(table: pg_sys::Oid, columns: &[&str]) -> Result<()> {
    let name = catalog::qualified_name(table)?;
    let statements: Vec<_> = columns
        .iter()
        .map(|column| format!("ALTER TABLE {name} ALTER COLUMN {} DROP NOT NULL", quote_identifier(*column)))
        .collect();
    execute(table, &statements)
}

/// Runs statements that were recorded when the columns had other names: under these names for the time. A statement that
/// no longer fits the columns is left out with a notice.
pub fn under_former_names<'s>(
    table: pg_sys::Oid,
    differences: &[Difference],
    statements: impl Iterator<Item = &'s str>,
) -> Result<()> {
    let name = catalog::qualified_name(table)?;
    let (away, home) = former_names(table, differences)?;
    execute(table, &mirror::rename_columns("TABLE", &name, &away))?;
    let owner = discover::owner(table)?;
    for sql in statements {
        let done = xact::subtransaction(|| user::as_user(owner, || spi::execute(sql, &[])).or_raise());
        if let Err(caught) = done {
            crate::pg::server_text::notice!("left out, for the columns have changed: {sql} ({})", caught.message);
        }
    }
    execute(table, &mirror::rename_columns("TABLE", &name, &home))
}

/// Renames to the former names and back; a column that now has another's former name steps aside.
#[allow(clippy::type_complexity)]
fn former_names(
    table: pg_sys::Oid,
    differences: &[Difference],
) -> Result<(Vec<(String, String)>, Vec<(String, String)>)> {
    let mut away: Vec<(String, String)> = Vec::new();
    for difference in differences {
        if let Difference::Renamed(from, to) = difference {
            away.push((to.clone(), from.clone()));
        }
    }
    let former: Vec<String> = differences
        .iter()
        .filter_map(|difference| match difference {
            Difference::Renamed(from, _) | Difference::Dropped(from) => Some(from.clone()),
            _ => None,
        })
        .collect();
    for (at, column) in discover::attributes(table)?.iter().enumerate() {
        let moves = away.iter().any(|(now, _)| *now == column.name);
        if !moves && former.contains(&column.name) {
            away.push((column.name.clone(), format!("archive_ext aside {at}")));
        }
    }
    let home = away.iter().map(|(now, then)| (then.clone(), now.clone())).collect();
    Ok((away, home))
}
