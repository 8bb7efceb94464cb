//! Everything about a partition that its rows do not tell, recorded as SQL for the way back (P3).

use archive_core::manifest::{Ddl, Identity, NamedDdl};
use pgrx::pg_sys;

use super::discover::Leaf;
use super::freeze::{BOUNDS_CHECK, ROW_GUARD, TRUNCATE_GUARD};
use super::prerequisites::{self, SEQUENCE_OPTIONS};
use crate::error::Result;
use crate::pg::{spi, user};

/// Records the partition. All names are qualified; constraints and triggers of the freeze are left out.
pub fn record(leaf: &Leaf, root: pg_sys::Oid) -> Result<Ddl> {
    user::elevated(|| {
        Ok(Ddl {
            prerequisites: prerequisites::statements(leaf.oid, root)?,
            ..of_table(leaf.oid, &leaf.qualified(), leaf.owner)?
        })
    })
}

/// A table's DDL but for its prerequisites. Runs elevated.
pub(super) fn of_table(oid: pg_sys::Oid, name: &str, owner: pg_sys::Oid) -> Result<Ddl> {
    Ok(Ddl {
        prerequisites: Vec::new(),
        create_table: create_table(oid, name)?,
        defaults: defaults(oid, name)?,
        identity: identity(oid, name)?,
        generated: generated(oid)?,
        storage_parameters: storage_parameters(oid, name)?,
        indexes: indexes(oid)?,
        constraints: constraints(oid, name)?,
        statistics: texts(
            "SELECT pg_get_statisticsobjdef(oid) FROM pg_statistic_ext WHERE stxrelid = $1 ORDER BY oid",
            oid,
        )?,
        triggers: triggers(oid, name)?,
        policies: policies(oid, name)?,
        comments: comments(oid, name)?,
        owner: user::name_of(owner),
        grants: grants(oid, name)?,
    })
}

fn texts(sql: &str, oid: pg_sys::Oid) -> Result<Vec<String>> {
    spi::rows(sql, &[oid.into()], |row| row.need(1))
}

fn texts_named(sql: &str, oid: pg_sys::Oid, name: &str) -> Result<Vec<String>> {
    spi::rows(sql, &[oid.into(), name.into()], |row| row.need(1))
}

fn pairs(sql: &str, args: &[pgrx::datum::DatumWithOid<'_>]) -> Result<Vec<NamedDdl>> {
    spi::rows(sql, args, |row| Ok(NamedDdl { name: row.need(1)?, sql: row.need(2)? }))
}

fn create_table(oid: pg_sys::Oid, name: &str) -> Result<String> {
    spi::one(
        "SELECT format(E'CREATE TABLE %s (\\n    %s\\n)', $2,
           string_agg(concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
             CASE WHEN a.attcollation <> t.typcollation THEN
               (SELECT format('COLLATE %I.%I', n.nspname, c.collname)
                FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace WHERE c.oid = a.attcollation) END,
             CASE WHEN a.attgenerated = 's' THEN
               (SELECT format('GENERATED ALWAYS AS (%s) STORED', pg_get_expr(d.adbin, d.adrelid))
                FROM pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum) END,
             CASE WHEN a.attnotnull THEN 'NOT NULL' END), E',\\n    ' ORDER BY a.attnum))
         FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
         WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped",
        &[oid.into(), name.into()],
        |row| row.need(1),
    )
}

fn defaults(oid: pg_sys::Oid, name: &str) -> Result<Vec<String>> {
    texts_named(
        "SELECT format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s', $2, a.attname, pg_get_expr(d.adbin, d.adrelid))
         FROM pg_attribute a JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE a.attrelid = $1 AND a.attgenerated = '' AND NOT a.attisdropped ORDER BY a.attnum",
        oid,
        name,
    )
}

/// Identity columns with their sequences' names and parameters; a partition may share its root's (PostgreSQL 17).
fn identity(oid: pg_sys::Oid, name: &str) -> Result<Vec<Identity>> {
    let sql = format!(
        "SELECT a.attname::text,
                format('ALTER TABLE %s ALTER COLUMN %I ADD GENERATED %s AS IDENTITY%s', $2, a.attname,
                       CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END, coalesce(s.options, ''))
         FROM pg_attribute a
         LEFT JOIN LATERAL (
           SELECT format(' (SEQUENCE NAME %I.%I %s)', n.nspname, c.relname, {SEQUENCE_OPTIONS}) AS options
           FROM pg_depend d JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'S'
           JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_sequence q ON q.seqrelid = c.oid
           WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'i'
             AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum) s ON true
         WHERE a.attrelid = $1 AND a.attidentity <> '' AND NOT a.attisdropped ORDER BY a.attnum"
    );
    spi::rows(&sql, &[oid.into(), name.into()], |row| Ok(Identity { column: row.need(1)?, sql: row.need(2)? }))
}

fn generated(oid: pg_sys::Oid) -> Result<Vec<NamedDdl>> {
    pairs(
        "SELECT a.attname::text, pg_get_expr(d.adbin, d.adrelid)
         FROM pg_attribute a JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE a.attrelid = $1 AND a.attgenerated <> '' AND NOT a.attisdropped ORDER BY a.attnum",
        &[oid.into()],
    )
}

/// Storage parameters, column statistics targets, storage, compression and the replica identity.
fn storage_parameters(oid: pg_sys::Oid, name: &str) -> Result<Vec<String>> {
    texts_named(
        "SELECT s FROM (
           SELECT 0 AS o, format('ALTER TABLE %s SET (%s)', $2, array_to_string(reloptions, ', ')) AS s
           FROM pg_class WHERE oid = $1 AND reloptions IS NOT NULL
           UNION ALL
           SELECT a.attnum, format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS %s', $2, a.attname, a.attstattarget)
           FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attstattarget >= 0
           UNION ALL
           SELECT a.attnum, format('ALTER TABLE %s ALTER COLUMN %I SET STORAGE %s', $2, a.attname,
                    CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END)
           FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
           WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attstorage <> t.typstorage
           UNION ALL
           SELECT a.attnum, format('ALTER TABLE %s ALTER COLUMN %I SET COMPRESSION %s', $2, a.attname,
                    CASE a.attcompression WHEN 'l' THEN 'lz4' ELSE 'pglz' END)
           FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attcompression <> ''
           UNION ALL
           SELECT 32767, format('ALTER TABLE %s REPLICA IDENTITY %s', $2, CASE relreplident WHEN 'f' THEN 'FULL' ELSE 'NOTHING' END)
           FROM pg_class WHERE oid = $1 AND relreplident IN ('f', 'n')) x
         ORDER BY o",
        oid,
        name,
    )
}

/// Indexes that no constraint owns.
fn indexes(oid: pg_sys::Oid) -> Result<Vec<NamedDdl>> {
    pairs(
        "SELECT c.relname::text, pg_get_indexdef(i.indexrelid)
         FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
         WHERE i.indrelid = $1 AND i.indisvalid
           AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = $1 AND k.contype IN ('p', 'u', 'x'))
         ORDER BY c.oid",
        &[oid.into()],
    )
}

fn constraints(oid: pg_sys::Oid, name: &str) -> Result<Vec<NamedDdl>> {
    let mut statements = own_not_nulls(oid, name)?;
    statements.extend(table_constraints(oid, name)?);
    Ok(statements)
}

/// NOT NULL on columns that are nullable in the parent.
fn own_not_nulls(oid: pg_sys::Oid, name: &str) -> Result<Vec<NamedDdl>> {
    pairs(
        "SELECT format('%s_not_null', a.attname), format('ALTER TABLE %s ALTER COLUMN %I SET NOT NULL', $2, a.attname)
         FROM pg_attribute a JOIN pg_inherits i ON i.inhrelid = a.attrelid
         JOIN pg_attribute above ON above.attrelid = i.inhparent AND above.attname = a.attname
         WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull AND NOT above.attnotnull
         ORDER BY a.attnum",
        &[oid.into(), name.into()],
    )
}

fn table_constraints(oid: pg_sys::Oid, name: &str) -> Result<Vec<NamedDdl>> {
    pairs(
        "SELECT k.conname::text, format('ALTER TABLE %s ADD CONSTRAINT %I %s', $2, k.conname, pg_get_constraintdef(k.oid))
         FROM pg_constraint k
         WHERE k.conrelid = $1 AND k.contype IN ('p', 'u', 'x', 'c', 'f') AND k.conname <> $3
           AND NOT EXISTS (SELECT FROM pg_constraint up WHERE up.oid = k.conparentid AND up.conrelid = k.conrelid)
         ORDER BY position(k.contype::text IN 'pucxf'), k.oid",
        &[oid.into(), name.into(), BOUNDS_CHECK.into()],
    )
}

fn triggers(oid: pg_sys::Oid, name: &str) -> Result<Vec<NamedDdl>> {
    pairs(
        "SELECT tgname::text, pg_get_triggerdef(oid) || CASE tgenabled WHEN 'O' THEN '' ELSE
                format('; ALTER TABLE %s %s TRIGGER %I', $4, CASE tgenabled WHEN 'D' THEN 'DISABLE'
                       WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE REPLICA' END, tgname) END
         FROM pg_trigger
         WHERE tgrelid = $1 AND NOT tgisinternal AND tgparentid = 0 AND tgname NOT IN ($2, $3) ORDER BY tgname",
        &[oid.into(), ROW_GUARD.into(), TRUNCATE_GUARD.into(), name.into()],
    )
}

/// The partition's own row security, which counts when it is queried by its own name.
fn policies(oid: pg_sys::Oid, name: &str) -> Result<Vec<String>> {
    texts_named(
        "SELECT s FROM (
           SELECT 0 AS o, p.polname, format('CREATE POLICY %I ON %s AS %s FOR %s TO %s%s%s', p.polname, $2,
                    CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
                    CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                         WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
                    (SELECT string_agg(CASE WHEN r = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ')
                     FROM unnest(p.polroles) r),
                    coalesce(' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')', ''),
                    coalesce(' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')', '')) AS s
           FROM pg_policy p WHERE p.polrelid = $1
           UNION ALL
           SELECT 1, '', format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', $2) FROM pg_class
           WHERE oid = $1 AND relrowsecurity
           UNION ALL
           SELECT 2, '', format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', $2) FROM pg_class
           WHERE oid = $1 AND relforcerowsecurity) x
         ORDER BY o, polname",
        oid,
        name,
    )
}

fn comments(oid: pg_sys::Oid, name: &str) -> Result<Vec<String>> {
    texts_named(
        "SELECT s FROM (
           SELECT 0 AS o, format('COMMENT ON TABLE %s IS %L', $2, obj_description($1, 'pg_class')) AS s
           WHERE obj_description($1, 'pg_class') IS NOT NULL
           UNION ALL
           SELECT a.attnum, format('COMMENT ON COLUMN %s.%I IS %L', $2, a.attname, col_description($1, a.attnum))
           FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
             AND col_description($1, a.attnum) IS NOT NULL
           UNION ALL
           SELECT 10000, format('COMMENT ON CONSTRAINT %I ON %s IS %L', k.conname, $2, obj_description(k.oid, 'pg_constraint'))
           FROM pg_constraint k WHERE k.conrelid = $1 AND obj_description(k.oid, 'pg_constraint') IS NOT NULL
           UNION ALL
           SELECT 20000, format('COMMENT ON INDEX %I.%I IS %L', n.nspname, c.relname, obj_description(c.oid, 'pg_class'))
           FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE i.indrelid = $1 AND obj_description(c.oid, 'pg_class') IS NOT NULL
           UNION ALL
           SELECT 30000, format('COMMENT ON TRIGGER %I ON %s IS %L', t.tgname, $2, obj_description(t.oid, 'pg_trigger'))
           FROM pg_trigger t WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgparentid = 0
             AND obj_description(t.oid, 'pg_trigger') IS NOT NULL
           UNION ALL
           SELECT 40000, format('COMMENT ON STATISTICS %I.%I IS %L', n.nspname, e.stxname,
                                obj_description(e.oid, 'pg_statistic_ext'))
           FROM pg_statistic_ext e JOIN pg_namespace n ON n.oid = e.stxnamespace
           WHERE e.stxrelid = $1 AND obj_description(e.oid, 'pg_statistic_ext') IS NOT NULL) x
         ORDER BY o, s",
        oid,
        name,
    )
}

fn grants(oid: pg_sys::Oid, name: &str) -> Result<Vec<String>> {
    texts_named(
        "SELECT format('GRANT %s%s ON %s TO %s%s', g.privileges, g.columns, $2,
                       CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
                       CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
         FROM (SELECT string_agg(a.privilege_type, ', ') AS privileges, '' AS columns, a.grantee, a.is_grantable
               FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = $1 AND a.grantee <> c.relowner
               GROUP BY a.grantee, a.is_grantable
               UNION ALL
               SELECT a.privilege_type, format(' (%I)', t.attname), a.grantee, a.is_grantable
               FROM pg_attribute t, aclexplode(t.attacl) a WHERE t.attrelid = $1 AND NOT t.attisdropped) g",
        oid,
        name,
    )
}
