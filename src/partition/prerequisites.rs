//! What an empty database must have before the columns of a table can be made: schemas, extensions, collations, types in
//! the order of their dependencies, sequences. Names are qualified, for the search path is pinned.

use archive_core::manifest::{CollationFact, Extension, Sequence};
use pgrx::pg_sys;

use crate::error::Result;
use crate::pg::columns::DATABASE_COLLATION_VERSION;
use crate::pg::spi;

/// The types of the columns of `$1` and `$2` and all that these are made of; `depth` orders them: greater ones first.
const USED: &str = "WITH RECURSIVE used(oid, depth) AS (
       SELECT a.atttypid, 0 FROM pg_attribute a
       WHERE a.attrelid IN ($1, $2) AND a.attnum > 0 AND NOT a.attisdropped
     UNION
       SELECT n.oid, u.depth + 1 FROM used u JOIN pg_type t ON t.oid = u.oid
       CROSS JOIN LATERAL (
         SELECT t.typelem WHERE t.typelem <> 0
         UNION ALL SELECT t.typbasetype WHERE t.typtype = 'd'
         UNION ALL SELECT f.atttypid FROM pg_attribute f
                   WHERE t.typtype = 'c' AND f.attrelid = t.typrelid AND f.attnum > 0 AND NOT f.attisdropped
         UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid
         UNION ALL SELECT r.rngtypid FROM pg_range r WHERE r.rngmultitypid = t.oid) n(oid)),
     needed AS (SELECT oid, max(depth) AS depth FROM used GROUP BY oid)";

/// The user's own among them: not PostgreSQL's, not an extension's.
const OWN_TYPES: &str = "own AS (
       SELECT t.*, n.depth FROM needed n JOIN pg_type t ON t.oid = n.oid
       WHERE t.typnamespace <> 'pg_catalog'::regnamespace AND t.typtype IN ('e', 'd', 'c', 'r')
         AND NOT EXISTS (SELECT FROM pg_depend d
                         WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'))";

/// Every collation of the columns, and of what their types are made of.
const COLLATIONS: &str = "collations AS (
       SELECT a.attcollation AS oid FROM pg_attribute a
       WHERE a.attrelid IN ($1, $2) AND a.attnum > 0 AND NOT a.attisdropped
       UNION SELECT t.typcollation FROM needed n JOIN pg_type t ON t.oid = n.oid
       UNION SELECT a.attcollation FROM needed n JOIN pg_type t ON t.oid = n.oid
             JOIN pg_attribute a ON a.attrelid = t.typrelid WHERE t.typtype = 'c' AND a.attnum > 0
       UNION SELECT r.rngcollation FROM needed n JOIN pg_range r ON r.rngtypid = n.oid)";

/// Sequences that defaults call or that identity columns own (`identity` tells which).
const SEQUENCES: &str = "sequences AS (
       SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name, n.nspname, q.*,
              EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                        AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'i') AS identity
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_sequence q ON q.seqrelid = c.oid
       WHERE c.oid IN (
         SELECT d.refobjid FROM pg_depend d JOIN pg_attrdef e ON d.classid = 'pg_attrdef'::regclass AND d.objid = e.oid
         WHERE e.adrelid IN ($1, $2) AND d.refclassid = 'pg_class'::regclass
         UNION ALL
         SELECT d.objid FROM pg_depend d
         WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'i'
           AND d.refobjid IN ($1, $2) AND d.refobjsubid > 0))";

/// The statements, in order, each of which does nothing where its object exists already.
pub fn statements(leaf: pg_sys::Oid, root: pg_sys::Oid) -> Result<Vec<String>> {
    let extensions = extensions(leaf, root)?;
    let mut statements = schemas(leaf, root, &extensions)?;
    statements.extend(extensions.iter().map(Extension::create));
    statements.extend(create_collations(leaf, root)?);
    statements.extend(create_types(leaf, root)?);
    statements.extend(create_sequences(leaf, root)?);
    Ok(statements)
}

fn texts(sql: &str, leaf: pg_sys::Oid, root: pg_sys::Oid) -> Result<Vec<String>> {
    spi::rows(sql, &[leaf.into(), root.into()], |row| row.need(1))
}

fn schemas(leaf: pg_sys::Oid, root: pg_sys::Oid, extensions: &[Extension]) -> Result<Vec<String>> {
    let sql = format!(
        "{USED}, {OWN_TYPES}, {COLLATIONS}, {SEQUENCES}
         SELECT DISTINCT n.nspname::text FROM pg_namespace n
         WHERE n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema') AND n.oid IN (
           SELECT relnamespace FROM pg_class WHERE oid IN ($1, $2)
           UNION ALL SELECT c.relnamespace FROM pg_partition_ancestors($1::oid) a JOIN pg_class c ON c.oid = a.relid
           UNION ALL SELECT typnamespace FROM own
           UNION ALL SELECT c.collnamespace FROM collations JOIN pg_collation c USING (oid)
           UNION ALL SELECT c.relnamespace FROM sequences JOIN pg_class c USING (oid))
         ORDER BY 1"
    );
    let mut names = texts(&sql, leaf, root)?;
    for extension in extensions {
        if extension.schema != "pg_catalog" && !names.contains(&extension.schema) {
            names.push(extension.schema.clone());
        }
    }
    Ok(names.iter().map(|name| format!("CREATE SCHEMA IF NOT EXISTS {}", pgrx::spi::quote_identifier(name))).collect())
}

/// Extensions that types, defaults, constraints, indexes or triggers of the tables need.
pub fn extensions(leaf: pg_sys::Oid, root: pg_sys::Oid) -> Result<Vec<Extension>> {
    let sql = format!(
        "{USED}
         SELECT DISTINCT e.extname::text, n.nspname::text, e.extversion
         FROM (SELECT 'pg_type'::regclass::oid AS classid, oid AS objid FROM needed
               UNION
               SELECT d.refclassid, d.refobjid FROM pg_depend d
               WHERE (d.classid, d.objid) IN (
                 SELECT 'pg_attrdef'::regclass::oid, oid FROM pg_attrdef WHERE adrelid IN ($1, $2)
                 UNION ALL SELECT 'pg_constraint'::regclass::oid, oid FROM pg_constraint WHERE conrelid IN ($1, $2)
                 UNION ALL SELECT 'pg_class'::regclass::oid, indexrelid FROM pg_index WHERE indrelid IN ($1, $2)
                 UNION ALL SELECT 'pg_trigger'::regclass::oid, oid FROM pg_trigger
                           WHERE tgrelid IN ($1, $2) AND NOT tgisinternal)) o
         JOIN pg_depend d ON d.classid = o.classid AND d.objid = o.objid AND d.deptype = 'e'
              AND d.refclassid = 'pg_extension'::regclass
         JOIN pg_extension e ON e.oid = d.refobjid JOIN pg_namespace n ON n.oid = e.extnamespace
         WHERE e.extname <> 'archive_ext' ORDER BY 1"
    );
    spi::rows(&sql, &[leaf.into(), root.into()], |row| {
        Ok(Extension { name: row.need(1)?, schema: row.need(2)?, version: row.need(3)? })
    })
}

/// Column names of pg_collation differ between versions, so its rows are read as JSON.
fn create_collations(leaf: pg_sys::Oid, root: pg_sys::Oid) -> Result<Vec<String>> {
    let sql = format!(
        "{USED}, {COLLATIONS}
         SELECT format('CREATE COLLATION IF NOT EXISTS %I.%I (%s)', n.nspname, c.collname, concat_ws(', ',
                  CASE c.collprovider WHEN 'i' THEN 'PROVIDER = icu' WHEN 'b' THEN 'PROVIDER = builtin' ELSE 'PROVIDER = libc' END,
                  CASE WHEN c.collprovider = 'c' AND j->>'collcollate' <> j->>'collctype'
                       THEN format('LC_COLLATE = %L, LC_CTYPE = %L', j->>'collcollate', j->>'collctype')
                       ELSE format('LOCALE = %L', coalesce(j->>'colllocale', j->>'colliculocale', j->>'collcollate')) END,
                  'RULES = ' || quote_literal(j->>'collicurules'),
                  CASE WHEN NOT c.collisdeterministic THEN 'DETERMINISTIC = false' END))
         FROM collations u JOIN pg_collation c USING (oid) JOIN pg_namespace n ON n.oid = c.collnamespace
         CROSS JOIN LATERAL to_jsonb(c) j
         WHERE n.nspname <> 'pg_catalog'
           AND NOT EXISTS (SELECT FROM pg_depend d
                           WHERE d.classid = 'pg_collation'::regclass AND d.objid = c.oid AND d.deptype = 'e')
         ORDER BY 1"
    );
    texts(&sql, leaf, root)
}

/// `CREATE TYPE` knows no IF NOT EXISTS, so each is a DO block that passes over a type that is there.
fn create_types(leaf: pg_sys::Oid, root: pg_sys::Oid) -> Result<Vec<String>> {
    let sql = format!(
        "{USED}, {OWN_TYPES}
         SELECT format('DO %L', format('BEGIN %s; EXCEPTION WHEN duplicate_object OR duplicate_table THEN NULL; END', s.statement))
         FROM own t CROSS JOIN LATERAL (
           SELECT CASE t.typtype
             WHEN 'e' THEN format('CREATE TYPE %s AS ENUM (%s)', format_type(t.oid, NULL),
               (SELECT string_agg(quote_literal(l.enumlabel), ', ' ORDER BY l.enumsortorder)
                FROM pg_enum l WHERE l.enumtypid = t.oid))
             WHEN 'd' THEN concat_ws(' ', 'CREATE DOMAIN', format_type(t.oid, NULL), 'AS', format_type(t.typbasetype, t.typtypmod),
               (SELECT format('COLLATE %I.%I', n.nspname, c.collname)
                FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
                JOIN pg_type b ON b.oid = t.typbasetype
                WHERE c.oid = t.typcollation AND b.typcollation <> t.typcollation),
               'DEFAULT ' || t.typdefault,
               CASE WHEN t.typnotnull THEN 'NOT NULL' END,
               (SELECT string_agg(format('CONSTRAINT %I %s', k.conname, pg_get_constraintdef(k.oid)), ' ' ORDER BY k.conname)
                FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c'))
             WHEN 'c' THEN format('CREATE TYPE %s AS (%s)', format_type(t.oid, NULL),
               (SELECT string_agg(concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
                         (SELECT format('COLLATE %I.%I', n.nspname, c.collname)
                          FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
                          JOIN pg_type f ON f.oid = a.atttypid
                          WHERE c.oid = a.attcollation AND f.typcollation <> a.attcollation)), ', ' ORDER BY a.attnum)
                FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped))
             ELSE (SELECT format('CREATE TYPE %s AS RANGE (%s)', format_type(t.oid, NULL), concat_ws(', ',
                     'SUBTYPE = ' || format_type(r.rngsubtype, NULL),
                     (SELECT format('SUBTYPE_OPCLASS = %I.%I', n.nspname, o.opcname)
                      FROM pg_opclass o JOIN pg_namespace n ON n.oid = o.opcnamespace
                      WHERE o.oid = r.rngsubopc AND NOT o.opcdefault),
                     (SELECT format('COLLATION = %I.%I', n.nspname, c.collname)
                      FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
                      JOIN pg_type b ON b.oid = r.rngsubtype
                      WHERE c.oid = r.rngcollation AND b.typcollation <> r.rngcollation),
                     (SELECT format('SUBTYPE_DIFF = %I.%I', n.nspname, p.proname)
                      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = r.rngsubdiff),
                     'MULTIRANGE_TYPE_NAME = ' || format_type(r.rngmultitypid, NULL)))
                   FROM pg_range r WHERE r.rngtypid = t.oid)
           END) s(statement)
         ORDER BY t.depth DESC, t.oid"
    );
    texts(&sql, leaf, root)
}

/// Identity columns make theirs themselves.
fn create_sequences(leaf: pg_sys::Oid, root: pg_sys::Oid) -> Result<Vec<String>> {
    let sql = format!(
        "WITH {SEQUENCES}
         SELECT format('CREATE SEQUENCE IF NOT EXISTS %s AS %s %s', name, format_type(seqtypid, NULL), {SEQUENCE_OPTIONS})
         FROM sequences WHERE NOT identity ORDER BY name"
    );
    texts(&sql, leaf, root)
}

/// Parameters of a row of pg_sequence as SQL.
pub const SEQUENCE_OPTIONS: &str =
    "format('INCREMENT BY %s MINVALUE %s MAXVALUE %s START WITH %s CACHE %s%s', seqincrement, seqmin, seqmax, seqstart,
            seqcache, CASE WHEN seqcycle THEN ' CYCLE' ELSE '' END)";

/// The sequences with their state now.
pub fn sequences(leaf: pg_sys::Oid, root: pg_sys::Oid) -> Result<Vec<Sequence>> {
    let sql = format!("WITH {SEQUENCES} SELECT name, seqincrement > 0 FROM sequences ORDER BY name");
    let found: Vec<(String, bool)> =
        spi::rows(&sql, &[leaf.into(), root.into()], |row| Ok((row.need(1)?, row.need(2)?)))?;
    found.into_iter().map(|(name, ascending)| sequence(name, ascending)).collect()
}

fn sequence(name: String, ascending: bool) -> Result<Sequence> {
    let (last_value, is_called) =
        spi::one(&format!("SELECT last_value, is_called FROM {name}"), &[], |row| Ok((row.need(1)?, row.need(2)?)))?;
    let further = if ascending { "greatest" } else { "least" };
    let literal = pgrx::spi::quote_literal(&name);
    let sql = format!(
        "SELECT pg_catalog.setval({literal}, {further}(last_value, {last_value}), is_called OR {is_called}) FROM {name}"
    );
    Ok(Sequence { name, last_value, is_called, sql })
}

/// Statements that tie the sequences of defaults to their columns, so that they go with the table.
pub fn owned_by(table: pg_sys::Oid) -> Result<Vec<String>> {
    spi::rows(
        "SELECT format('ALTER SEQUENCE %I.%I OWNED BY %I.%I.%I', sn.nspname, s.relname, tn.nspname, t.relname, a.attname)
         FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
         JOIN pg_namespace sn ON sn.oid = s.relnamespace
         JOIN pg_class t ON t.oid = d.refobjid JOIN pg_namespace tn ON tn.oid = t.relnamespace
         JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
         WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'a' AND t.oid = $1
         ORDER BY 1",
        &[table.into()],
        |row| row.need(1),
    )
}

/// Collations of the columns with the versions that their providers report now, and the database's.
pub fn collations(leaf: pg_sys::Oid, root: pg_sys::Oid) -> Result<Vec<CollationFact>> {
    let sql = format!(
        "{USED}, {COLLATIONS}
         SELECT format('%I.%I', n.nspname, c.collname),
                CASE c.collprovider WHEN 'd' THEN 'default' WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END,
                CASE c.collprovider
                  WHEN 'd' THEN (SELECT {DATABASE_COLLATION_VERSION} FROM pg_database d WHERE d.datname = current_database())
                  ELSE pg_collation_actual_version(c.oid) END
         FROM collations JOIN pg_collation c USING (oid) JOIN pg_namespace n ON n.oid = c.collnamespace ORDER BY 1"
    );
    spi::rows(&sql, &[leaf.into(), root.into()], |row| {
        Ok(CollationFact { name: row.need(1)?, provider: row.need(2)?, version: row.get(3)? })
    })
}
