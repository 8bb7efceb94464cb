//! `<table>_all`: every row, hot and archived. It follows the hot table's columns without hindering ALTER TABLE.

use pgrx::pg_sys;
use pgrx::spi::quote_identifier;

use super::discover::{self, Attribute};
use super::mirror;
use crate::catalog::{self, remnant};
use crate::error::{Error, OrRaise, Result, SqlState};
use crate::pg::{spi, user, xact};

/// Option of the view where the hot table has row security: then the reader's policies count on both sides. Without, the
/// view reads with its owner's rights, so that grants on single columns are good for it too. PostgreSQL 14 has no such
/// option; see [`allowed`].
const INVOKER: &str = "security_invoker=true";

/// Whether the view can be had. On PostgreSQL 14 a view reads with its owner's rights, past every policy: with row
/// security there is no view.
pub fn allowed(source: pg_sys::Oid) -> Result<bool> {
    if cfg!(not(feature = "pg14")) {
        return Ok(true);
    }
    user::elevated(|| {
        spi::one("SELECT NOT relrowsecurity FROM pg_class WHERE oid = $1", &[source.into()], |row| row.need(1))
    })
}

/// `CREATE VIEW`, as the owner.
pub fn create(source: pg_sys::Oid, archive: pg_sys::Oid, view: &str, owner: pg_sys::Oid) -> Result<()> {
    let body = body(source, archive)?;
    let options = with_options(&invoker(source)?);
    user::as_user(owner, || spi::execute(&format!("CREATE VIEW {view}{options} AS {body}"), &[]))?;
    super::access::close(view, owner)
}

fn with_options(options: &[String]) -> String {
    if options.is_empty() { String::new() } else { format!(" WITH ({})", options.join(", ")) }
}

fn invoker(source: pg_sys::Oid) -> Result<Vec<String>> {
    let row_security = user::elevated(|| {
        spi::one("SELECT relrowsecurity FROM pg_class WHERE oid = $1", &[source.into()], |row| row.need(1))
    })?;
    Ok(if row_security { vec![INVOKER.to_owned()] } else { Vec::new() })
}

fn body(source: pg_sys::Oid, archive: pg_sys::Oid) -> Result<String> {
    let columns: Vec<_> = discover::attributes(source)?.iter().map(|column| quote_identifier(&column.name)).collect();
    let columns = columns.join(", ");
    let (hot, archive) = (catalog::qualified_name(source)?, catalog::qualified_name(archive)?);
    // What stays of archived rows is not read besides them.
    let live = remnant::of(source)?.map_or_else(String::new, |marker| format!(" AS hot WHERE {}", marker.live("hot")));
    Ok(format!("SELECT {columns} FROM {hot}{live} UNION ALL SELECT {columns} FROM {archive}"))
}

/// Gives the view its body anew: the table got a marker, or has none any more.
pub fn refresh(source: pg_sys::Oid, archive: pg_sys::Oid, view: pg_sys::Oid) -> Result<()> {
    replace(view, &wanted_options(source, view)?, &body(source, archive)?)
}

/// The options the view has.
fn options(view: pg_sys::Oid) -> Result<Vec<String>> {
    user::elevated(|| {
        spi::rows("SELECT unnest(reloptions) FROM pg_class WHERE oid = $1", &[view.into()], |row| row.need(1))
    })
}

/// The options the view should have: those that somebody set, and ours.
fn wanted_options(source: pg_sys::Oid, view: pg_sys::Oid) -> Result<Vec<String>> {
    let mut options = options(view)?;
    options.retain(|option| !option.starts_with("security_invoker"));
    options.extend(invoker(source)?);
    Ok(options)
}

fn replace(view: pg_sys::Oid, options: &[String], body: &str) -> Result<()> {
    let (name, owner) = (catalog::qualified_name(view)?, discover::owner(view)?);
    let options = with_options(options);
    user::as_user(owner, || spi::execute(&format!("CREATE OR REPLACE VIEW {name}{options} AS {body}"), &[]))?;
    Ok(())
}

/// Makes the view return nothing and depend on no table, so that columns can be dropped and retyped. Owner, grants,
/// comment and what depends on it stay.
pub fn hollow(view: pg_sys::Oid) -> Result<()> {
    if is_hollow(view)? {
        return Ok(());
    }
    let columns: Vec<_> = discover::attributes(view)?
        .iter()
        .map(|column| format!("(NULL::{}){} AS {}", column.type_sql, column.collate, quote_identifier(&column.name)))
        .collect();
    replace(view, &options(view)?, &format!("SELECT {} WHERE false", columns.join(", ")))
}

fn is_hollow(view: pg_sys::Oid) -> Result<bool> {
    user::elevated(|| {
        spi::one(
            "SELECT NOT EXISTS (SELECT FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass
                AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class
              WHERE r.ev_class = $1)",
            &[view.into()],
            |row| row.need(1),
        )
    })
}

/// Gives the view the columns that the tables have now; the view, which may be another one.
pub fn rebuild(
    source: pg_sys::Oid,
    archive: pg_sys::Oid,
    view: pg_sys::Oid,
    changes: &mirror::Changes,
) -> Result<pg_sys::Oid> {
    rename(view, changes)?;
    let (hot, now) = (discover::attributes(source)?, discover::attributes(view)?);
    let options = wanted_options(source, view)?;
    if hot.len() == now.len() && is_prefix(&now, &hot) && !is_hollow(view)? && options == self::options(view)? {
        return Ok(view);
    }
    if is_prefix(&now, &hot) {
        return replace(view, &options, &body(source, archive)?).map(|()| view);
    }
    recreate(source, archive, view, &options)
}

fn rename(view: pg_sys::Oid, changes: &mirror::Changes) -> Result<()> {
    let now = discover::attributes(view)?;
    let has = |name: &str| now.iter().any(|column| column.name == name);
    let renamed: Vec<_> = changes.renamed.iter().filter(|(from, _)| has(from)).cloned().collect();
    let statements = mirror::rename_columns("VIEW", &catalog::qualified_name(view)?, &renamed);
    let owner = discover::owner(view)?;
    user::as_user(owner, || statements.iter().try_for_each(|sql| spi::execute(sql, &[]).map(drop)))
}

fn is_prefix(view: &[Attribute], hot: &[Attribute]) -> bool {
    view.len() <= hot.len() && view.iter().zip(hot).all(|(is, wanted)| is.name == wanted.name && is.same_type(wanted))
}

fn recreate(source: pg_sys::Oid, archive: pg_sys::Oid, view: pg_sys::Oid, options: &[String]) -> Result<pg_sys::Oid> {
    let (schema, relation) = discover::schema_and_name(view)?;
    let (name, owner) = (catalog::qualified_name(view)?, discover::owner(view)?);
    let (options, extras) = (with_options(options), extras(view, &name)?);
    drop_view(&name, owner)?;
    let body = body(source, archive)?;
    let columns: Vec<_> = discover::attributes(source)?.into_iter().map(|column| column.name).collect();
    user::as_user(owner, || {
        spi::execute(&format!("CREATE VIEW {name}{options} AS {body}"), &[])?;
        super::access::close(&name, owner)?;
        let kept = extras.iter().filter(|(column, _)| column.as_ref().is_none_or(|column| columns.contains(column)));
        kept.map(|(_, sql)| sql).try_for_each(|sql| spi::execute(sql, &[]).map(drop))
    })?;
    xact::command_counter_increment();
    discover::find_relation(&schema, &relation)?
        .ok_or_else(|| Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, format!("view {name} was not created")))
}

/// PostgreSQL 14: row security was switched on.
pub fn drop_for_row_security(view: pg_sys::Oid) -> Result<()> {
    let name = catalog::qualified_name(view)?;
    drop_view(&name, discover::owner(view)?)?;
    crate::pg::server_text::warning!(
        "view {name} was dropped: on PostgreSQL 14 it would show rows that the policies hide"
    );
    Ok(())
}

/// Drops the view, or says what depends on it (2BP01).
fn drop_view(name: &str, owner: pg_sys::Oid) -> Result<()> {
    let dropped = xact::subtransaction(|| {
        user::as_user(owner, || spi::execute(&format!("DROP VIEW {name}"), &[])).or_raise();
    });
    dropped.map_err(|caught| {
        if caught.sqlstate != SqlState::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST {
            return Error::from(caught);
        }
        Error::new(caught.sqlstate, format!("cannot change the columns of {name} because other objects depend on it"))
            .detail(caught.detail.unwrap_or_default())
            .hint("Drop these objects, alter the table, then create them again.")
    })
}

/// Grants, comments and triggers of the view as SQL, with the column that they are about.
fn extras(view: pg_sys::Oid, name: &str) -> Result<Vec<(Option<String>, String)>> {
    user::elevated(|| {
        spi::rows(
            "WITH grants AS (
               SELECT NULL::name AS attname, a.* FROM pg_class c, aclexplode(c.relacl) a
               WHERE c.oid = $1 AND a.grantee <> c.relowner
               UNION ALL
               SELECT t.attname, a.* FROM pg_attribute t, aclexplode(t.attacl) a
               WHERE t.attrelid = $1 AND NOT t.attisdropped)
             SELECT g.attname::text,
                    format('GRANT %s%s ON %s TO %s%s', g.privilege_type, coalesce(' (' || quote_ident(g.attname) || ')', ''), $2,
                           CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
                           CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
             FROM grants g
             UNION ALL
             SELECT NULL, format('COMMENT ON VIEW %s IS %L', $2, d.description) FROM pg_description d
             WHERE d.classoid = 'pg_class'::regclass AND d.objoid = $1 AND d.objsubid = 0
             UNION ALL
             SELECT t.attname::text, format('COMMENT ON COLUMN %s.%I IS %L', $2, t.attname, d.description)
             FROM pg_description d JOIN pg_attribute t ON t.attrelid = d.objoid AND t.attnum = d.objsubid
             WHERE d.classoid = 'pg_class'::regclass AND d.objoid = $1
             UNION ALL
             SELECT NULL, pg_get_triggerdef(t.oid) FROM pg_trigger t WHERE t.tgrelid = $1 AND NOT t.tgisinternal",
            &[view.into(), name.into()],
            |row| Ok((row.get(1)?, row.need(2)?)),
        )
    })
}
