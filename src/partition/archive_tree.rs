//! The relations of the archive schema: the parent that mirrors the hot table's tree above the leaf, and the `_all` view.

use archive_core::naming;
use pgrx::pg_sys;
use pgrx::spi::{quote_identifier, quote_literal, quote_qualified_identifier};

use super::{all_view, discover};
use crate::catalog::managed_table::{self, ManagedTable};
use crate::catalog::policy::Policy;
use crate::error::{Error, Result, SqlState};
use crate::pg::{spi, user};

/// Where the archive of a table is or will be.
#[derive(Debug, Clone)]
pub struct ArchiveNames {
    /// Schema.
    pub schema: String,
    /// Parent table.
    pub table: String,
    /// View over hot and archive.
    pub view: String,
}

impl ArchiveNames {
    /// The names for `source`: as registered, else by policy, else `archive.<table>`.
    pub fn of(source: pg_sys::Oid, source_name: &str, policy: &Policy) -> Result<Self> {
        let (schema, table) = match managed_table::of_source(source)? {
            Some(managed) => (managed.archive_schema, managed.archive_name),
            None => (
                policy.archive_schema.clone().unwrap_or_else(|| "archive".to_owned()),
                policy.archive_name.clone().unwrap_or_else(|| source_name.to_owned()),
            ),
        };
        let view = naming::all_view_name(&table)?;
        Ok(Self { schema, table, view })
    }

    /// The names of a table that is registered.
    pub fn existing(managed: &ManagedTable) -> Result<Self> {
        let (schema, table) = (managed.archive_schema.clone(), managed.archive_name.clone());
        let view = naming::all_view_name(&table)?;
        Ok(Self { schema, table, view })
    }

    /// The parent table, quoted.
    pub fn qualified_table(&self) -> String {
        quote_qualified_identifier(&self.schema, &self.table)
    }

    /// The view, quoted.
    pub fn qualified_view(&self) -> String {
        quote_qualified_identifier(&self.schema, &self.view)
    }
}

/// Refuses names that are taken, before any I/O (42P07).
pub fn check_names(source: pg_sys::Oid, names: &ArchiveNames, partition: &str, local_copy: &str) -> Result<()> {
    if let Some(other) = managed_table::source_of_archive(&names.schema, &names.table)?.filter(|other| *other != source)
    {
        let other = crate::catalog::qualified_name(other)?;
        return Err(taken(&names.qualified_table(), &format!("It is the archive of \"{other}\".")));
    }
    let managed = managed_table::of_source(source)?;
    let ours = |oid: pg_sys::Oid| {
        managed.as_ref().is_some_and(|managed| managed.archive_table == Some(oid) || managed.all_view == Some(oid))
    };
    for name in [names.table.as_str(), names.view.as_str()] {
        if discover::find_relation(&names.schema, name)?.is_some_and(|oid| !ours(oid)) {
            return Err(taken(
                &quote_qualified_identifier(names.schema.as_str(), name),
                "A relation of this name exists already.",
            ));
        }
    }
    for name in [partition, local_copy] {
        if discover::find_relation(&names.schema, name)?.is_some() {
            return Err(taken(
                &quote_qualified_identifier(names.schema.as_str(), name),
                "A relation of this name exists already.",
            ));
        }
    }
    Ok(())
}

fn taken(name: &str, detail: &str) -> Error {
    Error::new(
        SqlState::ERRCODE_DUPLICATE_TABLE,
        format!("archive relation \"{name}\" cannot be made: the name is taken"),
    )
    .detail(detail)
    .hint("Choose other names with set_archive_policy(source, archive_schema => '…', archive_name => '…').")
}

/// Refuses an archive schema that exists, was not made by us, and in which `owner` may not create relations (42501).
pub fn check_schema(schema: &str, owner: pg_sys::Oid) -> Result<()> {
    if schema_ready(schema, owner)? || !schema_exists(schema)? || made_by_us(schema)? {
        return Ok(());
    }
    let (schema, role) = (quote_identifier(schema), quote_identifier(user::name_of(owner)));
    Err(Error::new(
        SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("role {role} may not create archive relations in schema {schema}"),
    )
    .hint(
        "Choose another archive_schema with set_archive_policy(…), or have the schema's owner grant USAGE and CREATE.",
    ))
}

fn schema_exists(schema: &str) -> Result<bool> {
    user::elevated(|| {
        spi::one("SELECT to_regnamespace(quote_ident($1)) IS NOT NULL", &[schema.into()], |row| row.need(1))
    })
}

fn made_by_us(schema: &str) -> Result<bool> {
    user::elevated(|| {
        spi::one(
            "SELECT EXISTS (SELECT FROM archive_ext.archive_schema WHERE schema_name = $1::name)",
            &[schema.into()],
            |row| row.need(1),
        )
    })
}

/// Makes the archive schema usable for `owner`, who needs no CREATE on the database. Grants only on schemas made here:
/// its name is the owner's choice.
pub fn ensure_schema(schema: &str, owner: pg_sys::Oid) -> Result<()> {
    if schema_ready(schema, owner)? {
        return Ok(());
    }
    // Two sessions that grant on one schema at the same time would fail with "tuple concurrently updated".
    crate::partition::locks::serialize("schema", schema)?;
    check_schema(schema, owner)?;
    if schema_ready(schema, owner)? {
        return Ok(());
    }
    let create = !schema_exists(schema)?;
    let quoted = quote_identifier(schema);
    let role = quote_identifier(user::name_of(owner));
    user::elevated(|| {
        if create {
            spi::execute(&format!("CREATE SCHEMA {quoted}"), &[])?;
            spi::execute(&format!("GRANT USAGE ON SCHEMA {quoted} TO PUBLIC"), &[])?;
            spi::execute(
                "INSERT INTO archive_ext.archive_schema (schema_name) VALUES ($1::name) ON CONFLICT DO NOTHING",
                &[schema.into()],
            )?;
        }
        spi::execute(&format!("GRANT USAGE, CREATE ON SCHEMA {quoted} TO {role}"), &[])
    })?;
    Ok(())
}

/// Makes what is missing of the archive parent, the levels above `parent`, and the view.
///
/// Returns the managed table and the archive relation that mirrors `parent`.
pub fn ensure(source: pg_sys::Oid, parent: pg_sys::Oid, names: &ArchiveNames) -> Result<(ManagedTable, pg_sys::Oid)> {
    let owner = discover::owner(source)?;
    ensure_schema(&names.schema, owner)?;
    if managed_table::of_source(source)?.is_none_or(|managed| managed.archive_table.is_none()) {
        crate::partition::locks::serialize("table", &names.qualified_table())?;
    }
    let managed = managed_table::register(source, discover::kind(source)?, &names.schema, &names.table)?;
    let archive_root = match managed.archive_table {
        Some(oid) => oid,
        None => create_root(source, names, owner)?,
    };
    let view = ensure_view(source, archive_root, managed.all_view, names, owner)?;
    managed_table::set_archive(managed.id, archive_root, view)?;
    let mirror = mirror_levels(source, parent, archive_root, names, owner)?;
    Ok((ManagedTable { archive_table: Some(archive_root), all_view: view, ..managed }, mirror))
}

fn schema_ready(schema: &str, owner: pg_sys::Oid) -> Result<bool> {
    user::elevated(|| {
        spi::one(
            "SELECT coalesce((SELECT has_schema_privilege($2, n.oid, 'USAGE') AND has_schema_privilege($2, n.oid, 'CREATE')
                     FROM pg_namespace n WHERE n.nspname = $1::name), false)",
            &[schema.into(), owner.into()],
            |row| row.need(1),
        )
    })
}

fn required(schema: &str, name: &str) -> Result<pg_sys::Oid> {
    discover::find_relation(schema, name)?.ok_or_else(|| {
        Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, format!("relation \"{schema}.{name}\" was not created"))
    })
}

fn create_root(source: pg_sys::Oid, names: &ArchiveNames, owner: pg_sys::Oid) -> Result<pg_sys::Oid> {
    let hot = crate::catalog::qualified_name(source)?;
    let by_rows = discover::kind(source)?.is_archived_by_rows();
    let (what, partitioned) = match by_rows {
        // Row sets are its inheritance children: rows of any key, in any shape that the table had.
        true => ("rows", String::new()),
        false => ("partitions", format!(" PARTITION BY {}", discover::partition_key(source)?)),
    };
    let archive = names.qualified_table();
    let comment = quote_literal(format!("Archived {what} of {hot} (archive_ext)"));
    let mut statements = vec![
        format!("CREATE TABLE {archive} (LIKE {hot} INCLUDING COMMENTS){partitioned}"),
        format!("COMMENT ON TABLE {archive} IS {comment}"),
    ];
    if by_rows {
        // It has no rows of its own, and nobody can put some there.
        statements.push(format!("ALTER TABLE {archive} ADD CONSTRAINT archive_ext_no_rows CHECK (false) NO INHERIT"));
    }
    user::as_user(owner, || statements.iter().try_for_each(|sql| spi::execute(sql, &[]).map(drop)))?;
    let oid = required(&names.schema, &names.table)?;
    super::access::close(&archive, owner)?;
    copy_select_grants(source, &archive, owner)?;
    Ok(oid)
}

fn create_view(
    source: pg_sys::Oid,
    archive_root: pg_sys::Oid,
    names: &ArchiveNames,
    owner: pg_sys::Oid,
) -> Result<pg_sys::Oid> {
    let hot = crate::catalog::qualified_name(source)?;
    let view = names.qualified_view();
    let comment = quote_literal(format!("Every row of {hot}, hot and archived (archive_ext)"));
    all_view::create(source, archive_root, &view, owner)?;
    user::as_user(owner, || spi::execute(&format!("COMMENT ON VIEW {view} IS {comment}"), &[]))?;
    copy_select_grants(source, &view, owner)?;
    required(&names.schema, &names.view)
}

/// Makes the view where it is missing: at the first archive, or after something took it away.
pub fn ensure_view(
    source: pg_sys::Oid,
    archive_root: pg_sys::Oid,
    view: Option<pg_sys::Oid>,
    names: &ArchiveNames,
    owner: pg_sys::Oid,
) -> Result<Option<pg_sys::Oid>> {
    match view {
        Some(oid) => Ok(Some(oid)),
        None if all_view::allowed(source)? => create_view(source, archive_root, names, owner).map(Some),
        None => Ok(None),
    }
}

/// Who may SELECT from `from` may SELECT from `to`: whole tables and single columns.
pub fn copy_select_grants(from: pg_sys::Oid, to: &str, owner: pg_sys::Oid) -> Result<()> {
    copy_select_grants_of(from, to, owner, None)
}

/// The same for these roles only.
pub fn copy_select_grants_of(
    from: pg_sys::Oid,
    to: &str,
    owner: pg_sys::Oid,
    roles: Option<&[pg_sys::Oid]>,
) -> Result<()> {
    let grants = user::elevated(|| {
        spi::rows(
            "SELECT format('GRANT SELECT%s ON %s TO %s%s', g.columns, $2,
                           CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
                           CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
             FROM (SELECT '' AS columns, a.grantee, a.is_grantable FROM pg_class c, aclexplode(c.relacl) a
                   WHERE c.oid = $1 AND a.privilege_type = 'SELECT' AND a.grantee <> c.relowner
                   UNION ALL
                   SELECT format(' (%I)', t.attname), a.grantee, a.is_grantable
                   FROM pg_attribute t, aclexplode(t.attacl) a
                   WHERE t.attrelid = $1 AND NOT t.attisdropped AND a.privilege_type = 'SELECT') g
             WHERE $3 IS NULL OR g.grantee::bigint = ANY ($3)",
            &[from.into(), to.into(), roles.map(super::access::grantees).into()],
            |row| row.need::<String>(1),
        )
    })?;
    user::as_user(owner, || grants.iter().try_for_each(|grant| spi::execute(grant, &[]).map(drop)))
}

/// The hot ancestors of `parent` below the root, topmost first, each with its bounds and partition key.
fn levels(root: pg_sys::Oid, parent: pg_sys::Oid) -> Result<Vec<(String, String, String)>> {
    user::elevated(|| {
        spi::rows(
            "SELECT c.relname::text, pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(c.oid)
             FROM pg_partition_ancestors($1::oid) WITH ORDINALITY a(relid, depth) JOIN pg_class c ON c.oid = a.relid
             WHERE c.oid <> $2 ORDER BY a.depth DESC",
            &[parent.into(), root.into()],
            |row| Ok((row.need(1)?, row.need(2)?, row.need(3)?)),
        )
    })
}

fn mirror_levels(
    root: pg_sys::Oid,
    parent: pg_sys::Oid,
    archive_root: pg_sys::Oid,
    names: &ArchiveNames,
    owner: pg_sys::Oid,
) -> Result<pg_sys::Oid> {
    let mut above = archive_root;
    for (name, bounds, key) in levels(root, parent)? {
        above = match child_with_bounds(above, &bounds)? {
            Some(child) => child,
            None => create_level(above, &name, &bounds, &key, names, owner)?,
        };
    }
    Ok(above)
}

fn child_with_bounds(parent: pg_sys::Oid, bounds: &str) -> Result<Option<pg_sys::Oid>> {
    user::elevated(|| {
        spi::optional(
            "SELECT c.oid FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
             WHERE i.inhparent = $1 AND c.relkind = 'p' AND pg_get_expr(c.relpartbound, c.oid) = $2",
            &[parent.into(), bounds.into()],
            |row| row.need(1),
        )
    })
}

fn create_level(
    above: pg_sys::Oid,
    name: &str,
    bounds: &str,
    key: &str,
    names: &ArchiveNames,
    owner: pg_sys::Oid,
) -> Result<pg_sys::Oid> {
    let parent = crate::catalog::qualified_name(above)?;
    let qualified = quote_qualified_identifier(names.schema.as_str(), name);
    if discover::find_relation(&names.schema, name)?.is_some() {
        return Err(taken(&qualified, "A relation of this name exists already."));
    }
    user::as_user(owner, || {
        spi::execute(&format!("CREATE TABLE {qualified} PARTITION OF {parent} {bounds} PARTITION BY {key}"), &[])
    })?;
    super::access::close(&qualified, owner)?;
    required(&names.schema, name)
}
