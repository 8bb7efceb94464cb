//! The labels of a managed table's partitions, for those who read by lifecycle.

use std::collections::HashMap;

use archive_core::lifecycle::{Epoch, Kind, Level, Status, TimeKey, local_labels};
use pgrx::pg_sys;
use serde::Deserialize;

use super::time_key::EPOCH_MILLIS;
use crate::error::Result;
use crate::pg::{spi, user};

/// The partitions of a hot table, or of its archive.
#[derive(Debug)]
pub struct Labelled {
    /// Schema of the hot table.
    pub schema: String,
    /// Name of the hot table.
    pub table: String,
    /// Whether these are the archived partitions.
    pub archived: bool,
    /// The labels of each leaf; leaves with rows of any label are missing.
    pub leaves: HashMap<pg_sys::Oid, Vec<String>>,
    /// Every relation on which this depends.
    pub relations: Vec<pg_sys::Oid>,
}

#[derive(Deserialize)]
struct Found {
    kind: String,
    schema: String,
    table: String,
    archived: bool,
    catalog: u32,
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    relation: u32,
    parent: Option<u32>,
    leaf: bool,
    bounds: Option<String>,
    key: Option<Key>,
    status: Option<String>,
    label: Option<String>,
}

#[derive(Deserialize)]
struct Key {
    #[serde(rename = "type")]
    type_sql: String,
    epoch: Option<i64>,
}

impl Key {
    fn time_key(&self) -> Option<TimeKey> {
        TimeKey::of_type(&self.type_sql, self.epoch.map(Epoch::from_unix_millis))
    }
}

/// The partitions below `root`, when it is a managed table, or the archive of one, whose partitions have an age: RANGE and
/// LIST tables do, hash-partitioned, plain and static ones do not. As committed now.
pub fn labelled(root: pg_sys::Oid) -> Result<Option<Labelled>> {
    let root = root.to_u32();
    let text = user::elevated(|| {
        let sql = format!(
            "SELECT jsonb_build_object('kind', m.kind, 'schema', n.nspname, 'table', h.relname,
                'archived', m.source::oid <> {root}, 'catalog', m.tableoid::bigint,
                'nodes', (SELECT jsonb_agg(jsonb_build_object(
                            'relation', t.relid::oid::bigint, 'parent', t.parentrelid::oid::bigint, 'leaf', t.isleaf,
                            'bounds', pg_get_expr(c.relpartbound, c.oid),
                            'key', (SELECT jsonb_build_object('type', format_type(a.atttypid, NULL), 'epoch',
                                             CASE WHEN a.attname = rk.attname THEN
                                               (SELECT {EPOCH_MILLIS} FROM archive_ext.archive_policy p
                                                WHERE p.source = m.source) END)
                                    FROM pg_partitioned_table k JOIN pg_attribute a
                                      ON a.attrelid = k.partrelid AND a.attnum = k.partattrs[0]
                                    WHERE k.partrelid = t.parentrelid::oid AND k.partstrat = 'r'),
                            'status', p.status, 'label', p.label))
                          FROM pg_partition_tree({root}::oid) t
                          JOIN pg_class c ON c.oid = t.relid::oid
                          LEFT JOIN (SELECT DISTINCT ON (relation) * FROM (
                                       SELECT CASE WHEN m.source::oid = {root} THEN q.hot_table::oid
                                                   ELSE q.foreign_table::oid END AS relation, q.status, q.label, q.id
                                       FROM archive_ext.partition q WHERE q.managed_table = m.id) r
                                     WHERE relation IS NOT NULL ORDER BY relation, id DESC) p ON p.relation = c.oid))
             FROM archive_ext.managed_table m
             LEFT JOIN (pg_partitioned_table r JOIN pg_attribute rk ON rk.attrelid = r.partrelid AND rk.attnum = r.partattrs[0])
               ON r.partrelid = m.source::oid
             JOIN pg_class h ON h.oid = m.source::oid JOIN pg_namespace n ON n.oid = h.relnamespace
             WHERE {root} IN (m.source::oid, m.archive_table::oid) AND m.kind IN ('time', 'lifecycle', 'list')"
        );
        spi::latest_text(&sql, &[])
    })?;
    let Some(text) = text else { return Ok(None) };
    labels(serde_json::from_str(&text)?).map(Some)
}

fn labels(found: Found) -> Result<Labelled> {
    let kind: Kind = found.kind.parse()?;
    let nodes: HashMap<u32, &Node> = found.nodes.iter().map(|node| (node.relation, node)).collect();
    let mut leaves = HashMap::new();
    for node in found.nodes.iter().filter(|node| node.leaf) {
        let recorded = match &node.status {
            Some(status) => Some((status.parse::<Status>()?, node.label.clone())),
            None => None,
        };
        // An archived partition keeps the label it was archived with, whatever its table's kind.
        let labels = match &node.label {
            Some(label) if found.archived => vec![label.clone()],
            _ => local_labels(kind, &path(node, &nodes), recorded),
        };
        if !labels.is_empty() {
            leaves.insert(node.relation.into(), labels);
        }
    }
    // The catalog goes when the extension is dropped.
    let relations = found.nodes.iter().map(|node| node.relation).chain([found.catalog]).map(Into::into).collect();
    Ok(Labelled { schema: found.schema, table: found.table, archived: found.archived, leaves, relations })
}

/// The partitions from below the root down to the leaf.
fn path(leaf: &Node, nodes: &HashMap<u32, &Node>) -> Vec<Level> {
    let mut path = Vec::new();
    let mut node = Some(leaf);
    while let Some((here, bounds)) = node.and_then(|node| Some((node, node.bounds.clone()?))) {
        path.push(Level { bounds, key: here.key.as_ref().and_then(Key::time_key) });
        node = here.parent.and_then(|parent| nodes.get(&parent).copied());
    }
    path.reverse();
    path
}
