//! Who may read the archive: owner, privileges and row security of the hot table, carried over.

use pgrx::pg_sys;
use pgrx::spi::quote_identifier;

use super::{archive_tree, discover, locks};
use crate::catalog;
use crate::catalog::managed_table::ManagedTable;
use crate::error::{Error, OrRaise, Result};
use crate::guc;
use crate::pg::guc::GucNest;
use crate::pg::relation::LockMode;
use crate::pg::{spi, user, xact};

/// After GRANT or REVOKE on the hot table: these roles may SELECT from the archive parent and the view what they may
/// SELECT from the hot table. Other roles' grants on the archive are left alone.
pub fn mirror_grants(source: pg_sys::Oid, managed: &ManagedTable, roles: &[pg_sys::Oid]) -> Result<()> {
    let owner = discover::owner(source)?;
    let roles: Vec<_> = roles.iter().copied().filter(|role| *role != owner).collect();
    for relation in [managed.archive_table, managed.all_view].into_iter().flatten() {
        let name = catalog::qualified_name(relation)?;
        let revokes = revokes(relation, &name, &roles)?;
        user::as_user(discover::owner(relation)?, || {
            revokes.iter().try_for_each(|sql| spi::execute(sql, &[]).map(drop))
        })?;
        archive_tree::copy_select_grants_of(source, &name, discover::owner(relation)?, Some(&roles))?;
    }
    Ok(())
}

/// Takes from a relation that was just made what the owner's default privileges gave away: hot rows may be for fewer eyes.
pub fn close(name: &str, owner: pg_sys::Oid) -> Result<()> {
    let revokes = user::elevated(|| {
        spi::rows(
            "SELECT DISTINCT format('REVOKE ALL ON %s FROM %s CASCADE', $1,
                           CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
             FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = $1::regclass AND a.grantee <> c.relowner",
            &[name.into()],
            |row| row.need::<String>(1),
        )
    })?;
    user::as_user(owner, || revokes.iter().try_for_each(|sql| spi::execute(sql, &[]).map(drop)))
}

/// Who holds SELECT on a relation or a column of it.
pub fn readers(relation: pg_sys::Oid) -> Result<Vec<pg_sys::Oid>> {
    user::elevated(|| {
        spi::rows(
            "SELECT DISTINCT a.grantee
             FROM (SELECT relacl AS acl FROM pg_class WHERE oid = $1
                   UNION ALL SELECT attacl FROM pg_attribute WHERE attrelid = $1 AND NOT attisdropped) g,
                  aclexplode(g.acl) a
             WHERE a.privilege_type = 'SELECT'",
            &[relation.into()],
            |row| row.need(1),
        )
    })
}

/// As numbers: PUBLIC is 0, which as an OID would be passed as NULL.
pub fn grantees(roles: &[pg_sys::Oid]) -> Vec<i64> {
    roles.iter().map(|role| i64::from(role.to_u32())).collect()
}

fn revokes(relation: pg_sys::Oid, name: &str, roles: &[pg_sys::Oid]) -> Result<Vec<String>> {
    user::elevated(|| {
        spi::rows(
            "SELECT format('REVOKE SELECT%s ON %s FROM %s CASCADE', g.columns, $2,
                           CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END)
             FROM (SELECT '' AS columns, a.grantee FROM pg_class c, aclexplode(c.relacl) a
                   WHERE c.oid = $1 AND a.privilege_type = 'SELECT'
                   UNION ALL
                   SELECT format(' (%I)', t.attname), a.grantee FROM pg_attribute t, aclexplode(t.attacl) a
                   WHERE t.attrelid = $1 AND NOT t.attisdropped AND a.privilege_type = 'SELECT') g
             WHERE g.grantee::bigint = ANY ($3)",
            &[relation.into(), name.into(), grantees(roles).into()],
            |row| row.need(1),
        )
    })
}

/// Archive relations belong to the hot table's owner.
pub fn mirror_owner(source: pg_sys::Oid, managed: &ManagedTable) -> Result<()> {
    let owner = discover::owner(source)?;
    let Some(archive) = managed.archive_table else { return Ok(()) };
    let mut beside = catalog::partition::local_copies(managed.id)?;
    beside.extend(managed.all_view);
    let strangers = belonging_to_others(archive, beside, owner)?;
    if strangers.is_empty() {
        return Ok(());
    }
    archive_tree::ensure_schema(&managed.archive_schema, owner)?;
    let role = quote_identifier(user::name_of(owner));
    let _bounded = GucNest::new().set(c"lock_timeout", &guc::lock_timeout_ms().to_string());
    user::elevated(|| {
        strangers
            .iter()
            .try_for_each(|(kind, name)| spi::execute(&format!("ALTER {kind} {name} OWNER TO {role}"), &[]).map(drop))
    })
}

fn belonging_to_others(
    archive: pg_sys::Oid,
    beside: Vec<pg_sys::Oid>,
    owner: pg_sys::Oid,
) -> Result<Vec<(String, String)>> {
    user::elevated(|| {
        spi::rows(
            "SELECT CASE c.relkind WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END,
                    format('%I.%I', n.nspname, c.relname)
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relowner <> $3
               AND (c.oid = ANY ($2) OR c.oid IN (WITH RECURSIVE below AS (
                                SELECT $1::oid AS relid
                                UNION ALL
                                SELECT i.inhrelid FROM pg_inherits i JOIN below b ON i.inhparent = b.relid)
                              SELECT relid FROM below))
             ORDER BY c.oid",
            &[archive.into(), beside.into(), owner.into()],
            |row| Ok((row.need(1)?, row.need(2)?)),
        )
    })
}

/// Row security of the hot table as the archive parent should have it.
#[derive(Debug, PartialEq, Eq)]
struct RowSecurity {
    enabled: bool,
    forced: bool,
    policies: Vec<Policy>,
}

/// A policy that decides what SELECT sees. One without USING lets nothing be seen, here as there, and is left out.
#[derive(Debug, PartialEq, Eq)]
struct Policy {
    name: String,
    /// What follows `CREATE POLICY name ON table`.
    definition: String,
}

fn row_security(relation: pg_sys::Oid) -> Result<RowSecurity> {
    user::elevated(|| {
        let policies = spi::rows(
            "SELECT p.polname::text,
                    format('AS %s FOR SELECT TO %s USING (%s)',
                           CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
                           (SELECT string_agg(CASE WHEN r = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ')
                            FROM unnest(p.polroles) r),
                           pg_get_expr(p.polqual, p.polrelid))
             FROM pg_policy p WHERE p.polrelid = $1 AND p.polcmd IN ('r', '*') AND p.polqual IS NOT NULL
             ORDER BY p.polname",
            &[relation.into()],
            |row| Ok(Policy { name: row.need(1)?, definition: row.need(2)? }),
        )?;
        spi::one("SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = $1", &[relation.into()], |row| {
            Ok((row.need(1)?, row.need(2)?))
        })
        .map(|(enabled, forced)| RowSecurity { enabled, forced, policies })
    })
}

/// Policies of the archive parent that the hot table has no more. Until [`mirror_row_security`] has run, too little is
/// seen rather than too much: it all happens in one transaction.
pub fn drop_stale_policies(source: pg_sys::Oid, archive: pg_sys::Oid) -> Result<()> {
    let wanted = row_security(source)?.policies;
    let mut stale = row_security(archive)?.policies;
    stale.retain(|policy| !wanted.iter().any(|other| other.name == policy.name));
    let (name, owner) = (catalog::qualified_name(archive)?, discover::owner(archive)?);
    user::as_user(owner, || {
        stale.iter().try_for_each(|policy| {
            spi::execute(&format!("DROP POLICY {} ON {name}", quote_identifier(&policy.name)), &[]).map(drop)
        })
    })
}

/// The archive parent gets the hot table's row security: its switch and every policy that decides what SELECT sees.
pub fn mirror_row_security(source: pg_sys::Oid, managed: &ManagedTable) -> Result<()> {
    let Some(archive) = managed.archive_table else { return Ok(()) };
    let (wanted, now) = (row_security(source)?, row_security(archive)?);
    if wanted == now {
        return Ok(());
    }
    let name = catalog::qualified_name(archive)?;
    locks::acquire(archive, &name, LockMode::AccessExclusive)?;
    let statements = row_security_statements(&name, &wanted, &now);
    let applied = xact::subtransaction(|| {
        user::as_user(discover::owner(archive).or_raise(), || {
            statements.iter().try_for_each(|sql| spi::execute(sql, &[]).map(drop))
        })
        .or_raise();
    });
    applied.map_err(|caught| {
        Error::new(caught.sqlstate, format!("the policies of {name} cannot follow those of its hot table"))
            .detail(caught.message)
            .hint("Write the policy without naming the table, so that it holds for the archive too.")
    })?;
    if wanted.enabled { close_partitions(archive) } else { Ok(()) }
}

fn row_security_statements(name: &str, wanted: &RowSecurity, now: &RowSecurity) -> Vec<String> {
    let mut statements = Vec::new();
    for policy in now.policies.iter().filter(|policy| !wanted.policies.contains(policy)) {
        statements.push(format!("DROP POLICY {} ON {name}", quote_identifier(&policy.name)));
    }
    for policy in wanted.policies.iter().filter(|policy| !now.policies.contains(policy)) {
        statements.push(format!("CREATE POLICY {} ON {name} {}", quote_identifier(&policy.name), policy.definition));
    }
    let switch =
        |on: bool, yes: &str, no: &str| format!("ALTER TABLE {name} {} ROW LEVEL SECURITY", if on { yes } else { no });
    statements.push(switch(wanted.enabled, "ENABLE", "DISABLE"));
    statements.push(switch(wanted.forced, "FORCE", "NO FORCE"));
    statements
}

/// Foreign tables have no policies: with row security only the owner reads the archived partitions by their own names.
fn close_partitions(archive: pg_sys::Oid) -> Result<()> {
    let revokes = user::elevated(|| {
        spi::rows(
            "SELECT DISTINCT format('REVOKE SELECT%s ON %I.%I FROM %s CASCADE', g.columns, n.nspname, c.relname,
                           CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END)
             FROM (WITH RECURSIVE below AS (
                                SELECT $1::oid AS relid
                                UNION ALL
                                SELECT i.inhrelid FROM pg_inherits i JOIN below b ON i.inhparent = b.relid)
                              SELECT relid FROM below) t JOIN pg_class c ON c.oid = t.relid
             JOIN pg_namespace n ON n.oid = c.relnamespace
             CROSS JOIN LATERAL (
               SELECT '' AS columns, a.grantee FROM aclexplode(c.relacl) a WHERE a.privilege_type = 'SELECT'
               UNION ALL
               SELECT format(' (%I)', p.attname), a.grantee FROM pg_attribute p, aclexplode(p.attacl) a
               WHERE p.attrelid = c.oid AND NOT p.attisdropped AND a.privilege_type = 'SELECT') g
             WHERE t.relid <> $1 AND g.grantee <> c.relowner",
            &[archive.into()],
            |row| row.need::<String>(1),
        )
    })?;
    let owner = discover::owner(archive)?;
    user::as_user(owner, || revokes.iter().try_for_each(|sql| spi::execute(sql, &[]).map(drop)))
}
