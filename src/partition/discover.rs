//! What a relation is within its partition tree, by PostgreSQL's catalogs and bounds, never by names (P10).

use archive_core::lifecycle::{Kind, Label};
use pgrx::pg_sys;

use super::foreign_key;
use crate::error::Result;
use crate::pg::{spi, user, xact};

/// A relation that somebody asked to archive.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// Its OID.
    pub oid: pg_sys::Oid,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// `pg_class.relkind`.
    pub kind: char,
    /// `pg_class.relpersistence`.
    pub persistence: char,
    /// Owner.
    pub owner: pg_sys::Oid,
    /// Whether row-level security is on, here or at any ancestor: then readers do not get at the archived partition itself.
    pub row_security: bool,
    /// Immediate parent, if a partition.
    pub parent: Option<pg_sys::Oid>,
    /// Root of the partition tree.
    pub root: Option<pg_sys::Oid>,
    /// The parent's partition strategy: `r`, `l`, `h`.
    pub strategy: Option<char>,
    /// `FOR VALUES …` or `DEFAULT`.
    pub bounds: Option<String>,
    /// Whether a DETACH CONCURRENTLY was left unfinished.
    pub detach_pending: bool,
    /// `pg_class.relfilenode`.
    pub relfilenode: pg_sys::Oid,
    /// Rows by the planner's statistics, once there are some.
    pub estimated_rows: Option<u64>,
    /// Heap, TOAST and indexes in bytes.
    pub total_bytes: u64,
}

impl Leaf {
    /// `schema.name`, quoted where needed.
    pub fn qualified(&self) -> String {
        pgrx::spi::quote_qualified_identifier(&self.schema, &self.name)
    }

    /// The root of its tree, or itself: what a policy is for.
    pub fn tree(&self) -> pg_sys::Oid {
        self.root.unwrap_or(self.oid)
    }
}

/// Runs fixed queries whose functions lock what they look at, and gives these locks back.
pub fn look<T>(queries: impl FnOnce() -> T) -> T {
    xact::rolled_back(|| user::elevated(queries))
}

fn character(row: &spi::Row<'_>, ordinal: usize) -> Result<Option<char>> {
    Ok(row.get::<String>(ordinal)?.and_then(|text| text.chars().next()))
}

/// Looks at a relation; `None` when it does not exist.
pub fn leaf(oid: pg_sys::Oid) -> Result<Option<Leaf>> {
    user::elevated(|| {
        spi::optional(
            "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text, c.relowner,
                    c.relrowsecurity OR EXISTS (SELECT FROM pg_partition_ancestors(c.oid) a
                                                JOIN pg_class ac ON ac.oid = a.relid WHERE ac.relrowsecurity),
                    i.inhparent, CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid END, k.partstrat::text,
                    pg_get_expr(c.relpartbound, c.oid), coalesce(i.inhdetachpending, false),
                    c.relfilenode, CASE WHEN c.reltuples >= 0 THEN c.reltuples::bigint END,
                    CASE WHEN c.relkind IN ('r', 'm') THEN pg_total_relation_size(c.oid) ELSE 0 END
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND (c.relispartition OR i.inhdetachpending)
             LEFT JOIN pg_partitioned_table k ON k.partrelid = i.inhparent
             WHERE c.oid = $1",
            &[oid.into()],
            |row| {
                Ok(Leaf {
                    oid: row.need(1)?,
                    schema: row.need(2)?,
                    name: row.need(3)?,
                    kind: character(row, 4)?.unwrap_or(' '),
                    persistence: character(row, 5)?.unwrap_or(' '),
                    owner: row.need(6)?,
                    row_security: row.get(7)?.unwrap_or(false),
                    parent: row.get(8)?,
                    root: row.get(9)?,
                    strategy: character(row, 10)?,
                    bounds: row.get(11)?,
                    detach_pending: row.need(12)?,
                    relfilenode: row.need(13)?,
                    estimated_rows: row.get::<i64>(14)?.map(i64::unsigned_abs),
                    total_bytes: row.need::<i64>(15)?.unsigned_abs(),
                })
            },
        )
    })
}

/// The leaves below a partitioned table, as qualified names, at most `limit`.
pub fn leaves_below(oid: pg_sys::Oid, limit: i32) -> Result<Vec<String>> {
    user::elevated(|| {
        spi::rows(
            "SELECT format('%I.%I', n.nspname, c.relname)
             FROM pg_partition_tree($1::oid) t JOIN pg_class c ON c.oid = t.relid
             JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE t.isleaf ORDER BY t.level, c.oid LIMIT $2",
            &[oid.into(), limit.into()],
            |row| row.need(1),
        )
    })
}

/// How a table ages, by the partitioning at its root. A LIST table is lifecycle-partitioned when its key is one text
/// column that is called `lifecycle_status`, or when all values of its partitions are labels.
pub fn kind(root: pg_sys::Oid) -> Result<Kind> {
    let (strategy, key, values) = user::elevated(|| {
        spi::one(
            "SELECT (SELECT k.partstrat::text FROM pg_partitioned_table k WHERE k.partrelid = $1),
                    (SELECT a.attname::text FROM pg_partitioned_table k
                     JOIN pg_attribute a ON a.attrelid = k.partrelid AND a.attnum = k.partattrs[0]
                     JOIN pg_type t ON t.oid = a.atttypid
                     WHERE k.partrelid = $1 AND k.partnatts = 1 AND t.typcategory = 'S'),
                    ARRAY(SELECT v[1] FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid,
                               regexp_matches(pg_get_expr(c.relpartbound, c.oid), '''((?:[^'']|'''')*)''', 'g') v
                          WHERE i.inhparent = $1)",
            &[root.into()],
            |row| Ok((character(row, 1)?, row.get::<String>(2)?, row.need::<Vec<String>>(3)?)),
        )
    })?;
    Ok(match (strategy, key) {
        (Some('r'), _) => Kind::Time,
        (Some('h'), _) => Kind::Hash,
        (Some('l'), Some(key)) if key == "lifecycle_status" || are_labels(&values) => Kind::Lifecycle,
        (Some(_), _) => Kind::List,
        (None, _) => Kind::Plain,
    })
}

fn are_labels(values: &[String]) -> bool {
    !values.is_empty() && values.iter().all(|value| value.parse::<Label>().is_ok())
}

/// A partitioned table and everything below it, the table first. Keeps no locks.
pub fn tree(root: pg_sys::Oid) -> Result<Vec<pg_sys::Oid>> {
    look(|| {
        spi::rows("SELECT relid::oid FROM pg_partition_tree($1::oid) ORDER BY level, relid", &[root.into()], |row| {
            row.need(1)
        })
    })
}

/// The partitioned tables below a table, parents first.
pub fn partitioned_below(root: pg_sys::Oid) -> Result<Vec<pg_sys::Oid>> {
    user::elevated(|| {
        spi::rows(
            "SELECT t.relid::oid FROM pg_partition_tree($1) t WHERE NOT t.isleaf AND t.level > 0 ORDER BY t.level, t.relid::oid",
            &[root.into()],
            |row| row.need(1),
        )
    })
}

/// Schema and name of a relation.
pub fn schema_and_name(oid: pg_sys::Oid) -> Result<(String, String)> {
    user::elevated(|| {
        spi::one(
            "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.oid = $1",
            &[oid.into()],
            |row| Ok((row.need(1)?, row.need(2)?)),
        )
    })
}

/// The relation of this schema and name.
pub fn find_relation(schema: &str, name: &str) -> Result<Option<pg_sys::Oid>> {
    user::elevated(|| {
        spi::optional(
            "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1::name AND c.relname = $2::name",
            &[schema.into(), name.into()],
            |row| row.need(1),
        )
    })
}

/// Owner of a relation.
pub fn owner(oid: pg_sys::Oid) -> Result<pg_sys::Oid> {
    user::elevated(|| spi::one("SELECT relowner FROM pg_class WHERE oid = $1", &[oid.into()], |row| row.need(1)))
}

/// One live column of a relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Attribute number.
    pub number: i16,
    /// Name.
    pub name: String,
    /// Type.
    pub type_oid: pg_sys::Oid,
    /// Type modifier.
    pub typmod: i32,
    /// The type as SQL.
    pub type_sql: String,
    /// `COLLATE …` for types with collations, else empty.
    pub collate: String,
    /// Whether NULL is refused.
    pub not_null: bool,
    /// `attgenerated`: how it is computed; empty when it is not.
    pub generated: String,
}

impl Attribute {
    /// Whether the two have the same type, modifier and collation.
    pub fn same_type(&self, other: &Self) -> bool {
        self.type_oid == other.type_oid && self.typmod == other.typmod && self.collate == other.collate
    }

    /// The column's type with its collation.
    pub fn full_type(&self) -> String {
        format!("{}{}", self.type_sql, self.collate)
    }
}

/// The live columns of a relation in order.
pub fn attributes(relation: pg_sys::Oid) -> Result<Vec<Attribute>> {
    user::elevated(|| {
        spi::rows(
            "SELECT a.attnum::int4, a.attname::text, a.atttypid, a.atttypmod, format_type(a.atttypid, a.atttypmod),
                    coalesce((SELECT format(' COLLATE %I.%I', n.nspname, c.collname) FROM pg_collation c
                              JOIN pg_namespace n ON n.oid = c.collnamespace WHERE c.oid = a.attcollation), ''),
                    a.attnotnull, a.attgenerated::text
             FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            &[relation.into()],
            |row| {
                Ok(Attribute {
                    number: row.need::<i32>(1)? as i16,
                    name: row.need(2)?,
                    type_oid: row.need(3)?,
                    typmod: row.need(4)?,
                    type_sql: row.need(5)?,
                    collate: row.need(6)?,
                    not_null: row.need(7)?,
                    generated: row.need(8)?,
                })
            },
        )
    })
}

/// What is known of the columns of indexes, in order, index by index.
pub fn by_index<T>(columns: Vec<(pg_sys::Oid, T)>) -> Vec<Vec<T>> {
    let mut indexes: Vec<(pg_sys::Oid, Vec<T>)> = Vec::new();
    for (index, column) in columns {
        match indexes.last_mut() {
            Some((last, columns)) if *last == index => columns.push(column),
            _ => indexes.push((index, vec![column])),
        }
    }
    indexes.into_iter().map(|(_, columns)| columns).collect()
}

/// `pg_get_partkeydef`: `RANGE (created_at)`.
pub fn partition_key(oid: pg_sys::Oid) -> Result<String> {
    user::elevated(|| spi::one("SELECT pg_get_partkeydef($1)", &[oid.into()], |row| row.need(1)))
}

/// An inbound foreign key: a constraint of another table that references the partition.
#[derive(Debug)]
pub struct InboundKey {
    /// The referencing table.
    pub relation: pg_sys::Oid,
    /// Its name.
    pub table: String,
    /// The constraint on it, as its table was given it.
    pub constraint: String,
    /// The partition, its rows within their bounds, as `p`.
    referenced: String,
    /// What makes a row `f` of the table reference a row `p` of the partition.
    condition: String,
}

impl InboundKey {
    /// The rows of `leaf`, which is the referencing table or a leaf of it, that reference the partition.
    pub fn rows_from(&self, leaf: &str) -> String {
        format!("FROM ONLY {leaf} f JOIN {} p ON {}", self.referenced, self.condition)
    }
}

/// Foreign keys that reference the partition.
pub fn inbound_keys(oid: pg_sys::Oid) -> Result<Vec<InboundKey>> {
    look(|| {
        let matches = foreign_key::matches("'f'", "'p'");
        let sql = format!(
            "SELECT k.conrelid, format('%I.%I', fn.nspname, fc.relname),
                    (WITH RECURSIVE up AS (
                       SELECT k.conname, k.conparentid
                       UNION ALL
                       SELECT a.conname, a.conparentid FROM up JOIN pg_constraint a ON a.oid = up.conparentid)
                     SELECT conname::text FROM up WHERE conparentid = 0),
                    format('(SELECT * FROM ONLY %I.%I%s)', pn.nspname, pc.relname,
                           ' WHERE ' || pg_get_partition_constraintdef(pc.oid)),
                    {matches}
             FROM pg_constraint k
             JOIN pg_class fc ON fc.oid = k.conrelid JOIN pg_namespace fn ON fn.oid = fc.relnamespace
             JOIN pg_class pc ON pc.oid = k.confrelid JOIN pg_namespace pn ON pn.oid = pc.relnamespace
             WHERE k.contype = 'f' AND k.confrelid = $1
               AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = k.conrelid AND k.coninhcount > 0)"
        );
        spi::rows(&sql, &[oid.into()], |row| {
            Ok(InboundKey {
                relation: row.need(1)?,
                table: row.need(2)?,
                constraint: row.need(3)?,
                referenced: row.need(4)?,
                condition: row.need(5)?,
            })
        })
    })
}

/// The relations that hold the rows of a table, with their names: its leaves, or itself.
pub fn storing(table: pg_sys::Oid) -> Result<Vec<(pg_sys::Oid, String)>> {
    look(|| {
        spi::rows(
            "SELECT c.oid, format('%I.%I', n.nspname, c.relname)
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'r' AND (c.oid = $1 OR c.oid IN (SELECT t.relid FROM pg_partition_tree($1::oid) t WHERE t.isleaf))
             ORDER BY c.oid",
            &[table.into()],
            |row| Ok((row.need(1)?, row.need(2)?)),
        )
    })
}

/// The leaves below a partitioned table, or the table itself where it is none.
pub fn leaf_oids(oid: pg_sys::Oid) -> Result<Vec<pg_sys::Oid>> {
    user::elevated(|| {
        spi::rows(
            "SELECT t.relid::oid FROM pg_partition_tree($1::oid) t WHERE t.isleaf ORDER BY t.level, t.relid::oid",
            &[oid.into()],
            |row| row.need(1),
        )
    })
}

/// The partitions right below a table.
pub fn children(parent: pg_sys::Oid) -> Result<Vec<Leaf>> {
    let oids: Vec<pg_sys::Oid> = user::elevated(|| {
        spi::rows(
            "SELECT i.inhrelid FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
             WHERE i.inhparent = $1 AND c.relispartition ORDER BY i.inhrelid",
            &[parent.into()],
            |row| row.need(1),
        )
    })?;
    let found: Result<Vec<_>> = oids.into_iter().map(leaf).collect();
    Ok(found?.into_iter().flatten().collect())
}
