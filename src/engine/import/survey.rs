//! What a storage holds: the newest readable manifest of each partition, and whether its objects are there.

use std::collections::{BTreeMap, HashMap};

use archive_core::manifest::{BatchManifest, Manifest, Root};
use archive_core::naming;
use archive_core::store::BlockingStore;

use super::{Action, Line, Options};
use crate::engine::manifest;
use crate::error::Result;
use crate::pg::{interrupts, spi, user};

/// A partition that can be imported.
#[derive(Debug)]
pub(super) struct Found {
    /// Key of the manifest.
    pub(super) key: String,
    /// The manifest.
    pub(super) manifest: Manifest,
    /// Objects that are not in the listing or have another size.
    missing: Vec<String>,
    /// Of a row set, the manifest of its last batch.
    pub(super) last_batch: Option<String>,
    /// Of a row set, the manifests that its chain goes through, oldest first.
    pub(super) batches: Vec<String>,
}

/// A partitioned table with its partitions, the one archived last first.
#[derive(Debug)]
pub(super) struct Table {
    /// Schema.
    pub(super) schema: String,
    /// Name.
    pub(super) name: String,
    /// The table as its newest manifest knows it.
    pub(super) root: Root,
    /// Its partitions.
    pub(super) partitions: Vec<Found>,
}

/// Lists the storage once, and reads the manifests that the filter lets through.
pub(super) fn survey(store: &BlockingStore, options: &Options) -> Result<(Vec<Table>, Vec<Line>)> {
    let listing = store.list("")?;
    let sizes: HashMap<&str, u64> = listing.iter().map(|object| (object.key.as_str(), object.bytes)).collect();
    let mut lines = Vec::new();
    let mut newest: BTreeMap<(String, String, String), Found> = BTreeMap::new();
    let mut broken = Vec::new();
    let mut batches: BTreeMap<String, BTreeMap<String, BatchManifest>> = BTreeMap::new();
    for key in listing.iter().map(|object| object.key.as_str()).filter(|key| is_manifest(key)) {
        interrupts::check();
        if !wanted(key, options)? {
            continue;
        }
        if naming::is_batch_manifest(key) {
            match manifest::load_batch(store, key) {
                Ok(batch) => drop(batches.entry(batch.set.clone()).or_default().insert(key.to_owned(), batch)),
                Err(error) => broken.push((key.to_owned(), super::told(&error))),
            }
            continue;
        }
        match read(store, key) {
            Ok(manifest) => keep_newest(&mut newest, found(key, manifest, &sizes)),
            Err(error) => broken.push((key.to_owned(), super::told(&error))),
        }
    }
    // Those with bounds were stubs' rows of a partition, and become one.
    for found in newest.values_mut() {
        match batches.remove(&found.key) {
            Some(batches) => lines.extend(collect(found, batches, &sizes)),
            None if found.manifest.source.bounds.is_none() => {
                lines.extend(collect(found, BTreeMap::new(), &sizes));
            }
            None => {}
        }
    }
    for (set, orphans) in batches {
        let what = format!("{} batches of rows belong to a row set that is not there", orphans.len());
        lines.push(Line::about(set, Action::Unreadable, what));
    }
    // An old version that cannot be read does not matter where a newer one can.
    broken.retain(|(key, _)| !newest.values().any(|found| is_older(key, found)));
    lines.extend(broken.into_iter().map(|(key, why)| Line::about(key, Action::Unreadable, why)));
    Ok((tables(newest, options, &mut lines)?, lines))
}

fn is_manifest(key: &str) -> bool {
    let mut parts = key.split('/');
    let (Some(_), Some("_manifests"), Some(name), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    name.ends_with(".json")
}

/// A name that was cut in the key is looked up in the manifest later.
fn wanted(key: &str, options: &Options) -> Result<bool> {
    match naming::table_of_prefix(key) {
        Some((schema, table)) => matches(&schema, &table, options),
        None => Ok(true),
    }
}

fn matches(schema: &str, table: &str, options: &Options) -> Result<bool> {
    let Some(pattern) = &options.tables else { return Ok(true) };
    let name = format!("{schema}.{table}");
    user::elevated(|| {
        spi::one("SELECT $1 LIKE $2", &[name.as_str().into(), pattern.as_str().into()], |row| row.need(1))
    })
}

/// A manifest must be where its contents say, and name objects of its own table only.
fn read(store: &BlockingStore, key: &str) -> Result<Manifest> {
    let manifest = manifest::load(store, key)?;
    let source = &manifest.source;
    let prefix = naming::table_prefix(&source.schema, &source.table);
    let in_place = naming::manifest_key(&source.schema, &source.table, &source.partition, manifest.version) == key
        && manifest.objects.iter().all(|object| object.key.starts_with(&prefix));
    if in_place {
        return Ok(manifest);
    }
    Err(crate::error::Error::new(
        crate::error::SqlState::ERRCODE_DATA_CORRUPTED,
        format!("it is version {} of {}.{} in {prefix}", manifest.version, source.partition_schema, source.partition),
    ))
}

fn found(key: &str, manifest: Manifest, sizes: &HashMap<&str, u64>) -> Found {
    let intact = |key: &str, bytes: u64| sizes.get(key) == Some(&bytes);
    let missing =
        manifest.objects.iter().filter(|object| !intact(&object.key, object.bytes)).map(|object| object.key.clone());
    Found { key: key.to_owned(), missing: missing.collect(), manifest, last_batch: None, batches: Vec::new() }
}

/// Gives a row set the objects of its batches; a line about rows of which nobody can tell where they are.
fn collect(found: &mut Found, batches: BTreeMap<String, BatchManifest>, sizes: &HashMap<&str, u64>) -> Option<Line> {
    let collected = BatchManifest::chain(&batches).and_then(|keys| {
        let chain = keys.iter().filter_map(|key| batches.get(*key)).collect();
        let (chain, unsure) = BatchManifest::without_unsure(chain);
        let last = keys.get(..chain.len()).and_then(<[&str]>::last).map(|key| (*key).to_owned());
        let keys = keys.into_iter().map(str::to_owned).collect();
        Ok((keys, last, BatchManifest::objects(chain)?, unsure))
    });
    let (keys, last, objects, unsure) = match collected {
        Ok(collected) => collected,
        Err(missing) => {
            found.missing.push(missing);
            return None;
        }
    };
    let manifest = &mut found.manifest;
    for object in &objects {
        manifest.digest.merge(&object.digest);
        manifest.rows += object.rows;
        manifest.bytes += object.bytes;
    }
    manifest.objects.extend(objects.into_iter().cloned());
    (found.last_batch, found.batches) = (last, keys);
    let intact = |key: &str, bytes: u64| sizes.get(key) == Some(&bytes);
    let missing = manifest.objects.iter().filter(|object| !intact(&object.key, object.bytes));
    found.missing = missing.map(|object| object.key.clone()).collect();
    (unsure > 0).then(|| {
        let what =
            format!("{unsure} rows are imported that restore_rows() may have put back last: the storage cannot tell");
        Line::about(found.name(), Action::Warning, what)
    })
}

fn keep_newest(newest: &mut BTreeMap<(String, String, String), Found>, found: Found) {
    let source = &found.manifest.source;
    let identity =
        (format!("{}.{}", source.schema, source.table), source.partition_schema.clone(), source.partition.clone());
    match newest.get(&identity) {
        Some(other) if other.manifest.version > found.manifest.version => {}
        _ => drop(newest.insert(identity, found)),
    }
}

fn is_older(key: &str, found: &Found) -> bool {
    let version = naming::version_of(key, &found.manifest.source.partition);
    let same_table = key.split('/').next() == found.key.split('/').next();
    same_table && version.is_some_and(|version| version < found.manifest.version)
}

fn tables(
    newest: BTreeMap<(String, String, String), Found>,
    options: &Options,
    lines: &mut Vec<Line>,
) -> Result<Vec<Table>> {
    let mut grouped: BTreeMap<(String, String), Vec<Found>> = BTreeMap::new();
    for found in newest.into_values() {
        let name = (found.manifest.source.schema.clone(), found.manifest.source.table.clone());
        if matches(&name.0, &name.1, options)? {
            grouped.entry(name).or_default().push(found);
        }
    }
    let mut tables = Vec::with_capacity(grouped.len());
    for ((schema, name), mut partitions) in grouped {
        // RFC 3339 in UTC: the order of the text is that of the times.
        partitions.sort_by(|one, other| other.manifest.created_at.cmp(&one.manifest.created_at));
        let Some(root) = partitions.iter().find_map(|found| found.manifest.root_or_derived()) else {
            let batch =
                |found: &Found| Line::of(found, Action::Failed, Some("it is not of a partitioned table".into()));
            lines.extend(partitions.iter().map(batch));
            continue;
        };
        tables.push(Table { schema, name, root, partitions });
    }
    Ok(tables)
}

/// Why a partition's objects do not do, if so.
pub(super) fn missing(found: &Found, store: &BlockingStore, verify: bool) -> Option<String> {
    if !found.missing.is_empty() {
        return Some(format!("objects are missing or have another size: {}", found.missing.join(", ")));
    }
    if !verify {
        return None;
    }
    found.manifest.objects.iter().find_map(|object| {
        let mut reader = store.reader(&object.key, object.bytes);
        match archive_core::codec::sha256_of(&mut reader) {
            Ok(sha256) if sha256.eq_ignore_ascii_case(&object.sha256) => None,
            Ok(_) => Some(format!("object {} has another SHA-256 than recorded", object.key)),
            Err(error) => Some(format!("object {} cannot be read: {}", object.key, error.message())),
        }
    })
}
