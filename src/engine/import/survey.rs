//! What a storage holds: the readable manifests of each partition, the newest first, and whether their objects are there.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use archive_core::manifest::{BatchManifest, Manifest, Root, Unsettled};
use archive_core::naming::{self, KeyName};
use archive_core::store::{BlockingStore, ObjectMeta};

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
    /// Whether all of it was listed.
    complete: bool,
    /// Of a row set, the manifest of its last batch.
    pub(super) last_batch: Option<String>,
    /// Of a row set, the manifests that its chain goes through, oldest first.
    pub(super) batches: Vec<String>,
    /// Of a row set, a manifest or object without which nobody can tell what it holds.
    missing_link: Option<String>,
    /// Of a row set, what its next manifest must say first.
    pub(super) unsettled: Option<Unsettled>,
    /// Earlier versions of a partition, newest first: for when this one is not complete.
    older: Vec<Found>,
}

impl Found {
    /// This version and those before it, newest first.
    pub(super) fn versions(&self) -> impl Iterator<Item = &Found> {
        std::iter::once(self).chain(&self.older)
    }

    /// The version that is imported, as far as the listing tells.
    pub(super) fn best(&self) -> &Found {
        self.versions().find(|version| version.complete).unwrap_or(self)
    }

    /// Who removes garbage has none of these while it removes something of this partition.
    pub(super) fn families(&self) -> BTreeSet<String> {
        let of = |found: &Found| {
            let objects = found.manifest.objects.iter().map(|object| object.key.as_str());
            let keys =
                std::iter::once(found.key.as_str()).chain(objects).chain(found.batches.iter().map(String::as_str));
            keys.filter_map(|key| KeyName::of(key).family()).collect::<Vec<_>>()
        };
        self.versions().flat_map(of).collect()
    }
}

/// What a storage lists below a prefix.
pub(super) struct Listed<'a> {
    prefix: &'a str,
    bytes: HashMap<&'a str, u64>,
}

impl<'a> Listed<'a> {
    pub(super) fn of(prefix: &'a str, listing: &'a [ObjectMeta]) -> Self {
        Self { prefix, bytes: listing.iter().map(|object| (object.key.as_str(), object.bytes)).collect() }
    }

    /// Whether a key is there, with this size if one is given. A table that was renamed may have objects below another prefix.
    fn has(&self, store: &BlockingStore, key: &str, bytes: Option<u64>) -> bool {
        let found = match self.bytes.get(key) {
            None if !key.starts_with(self.prefix) => store.head(key).ok().flatten().map(|object| object.bytes),
            listed => listed.copied(),
        };
        found.is_some_and(|found| bytes.is_none_or(|bytes| bytes == found))
    }
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
    let listed = Listed::of("", &listing);
    let mut lines = Vec::new();
    let mut versions: BTreeMap<(String, String, String), Vec<Found>> = BTreeMap::new();
    let mut broken = Vec::new();
    let mut batches: BTreeMap<String, BTreeMap<String, BatchManifest>> = BTreeMap::new();
    for key in listing.iter().map(|object| object.key.as_str()).filter(|key| is_manifest(key)) {
        interrupts::check();
        if !wanted(key, options)? {
            continue;
        }
        if naming::is_batch_manifest(key) {
            match manifest::load_batch(store, key) {
                Ok(batch) => drop(batches.entry(batch.set.clone()).or_default().insert(key.to_owned(), batch.dated())),
                Err(error) => broken.push((key.to_owned(), super::told(&error))),
            }
            continue;
        }
        match read(store, key) {
            Ok(manifest) => versions.entry(identity(&manifest)).or_default().push(found(key, manifest)),
            Err(error) => broken.push((key.to_owned(), super::told(&error))),
        }
    }
    let mut newest: BTreeMap<_, _> =
        versions.into_iter().filter_map(|(identity, all)| Some((identity, newest_of(all)?))).collect();
    // Those with bounds were stubs' rows of a partition, and become one.
    for found in newest.values_mut() {
        let batches = batches.remove(&found.key);
        if batches.is_some() || found.manifest.source.bounds.is_none() {
            // An earlier one of this name had other rows: they went back to the table, or were never committed.
            found.older.clear();
            lines.extend(collect(found, batches.unwrap_or_default()));
        }
        let complete = |found: &Found| missing_of(found, &listed, store).is_empty();
        found.complete = complete(found);
        found.older.iter_mut().for_each(|found| found.complete = complete(found));
    }
    for (set, orphans) in batches {
        let what = format!("{} batches of rows belong to a row set that is not there", orphans.len());
        lines.push(Line::about(set, Action::Unreadable, what));
    }
    // An old version that cannot be read does not matter where a newer one can.
    broken.retain(|(key, _)| !newest.values().any(|found| is_older(key, found.best())));
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

fn found(key: &str, manifest: Manifest) -> Found {
    Found {
        key: key.to_owned(),
        manifest,
        complete: false,
        last_batch: None,
        batches: Vec::new(),
        missing_link: None,
        unsettled: None,
        older: Vec::new(),
    }
}

fn identity(manifest: &Manifest) -> (String, String, String) {
    let source = &manifest.source;
    (format!("{}.{}", source.schema, source.table), source.partition_schema.clone(), source.partition.clone())
}

fn newest_of(mut versions: Vec<Found>) -> Option<Found> {
    versions.sort_by_key(|found| std::cmp::Reverse(found.manifest.version));
    let mut versions = versions.into_iter();
    let mut newest = versions.next()?;
    newest.older = versions.collect();
    Some(newest)
}

/// Gives a row set the objects of its batches; a line about rows of which nobody can tell where they are.
fn collect(found: &mut Found, batches: BTreeMap<String, BatchManifest>) -> Option<Line> {
    let collected = BatchManifest::chain(&batches).and_then(|keys| {
        let chain: Vec<_> = keys.iter().filter_map(|key| batches.get(*key)).collect();
        Ok((keys, BatchManifest::imported(&chain)?))
    });
    let (keys, imported) = match collected {
        Ok(collected) => collected,
        Err(missing) => {
            found.missing_link = Some(missing);
            return None;
        }
    };
    let manifest = &mut found.manifest;
    for object in &imported.objects {
        manifest.digest.merge(&object.digest);
        manifest.rows += object.rows;
        manifest.bytes += object.bytes;
    }
    manifest.objects.extend(imported.objects.into_iter().cloned());
    found.last_batch = keys.get(..imported.length).and_then(<[&str]>::last).map(|key| (*key).to_owned());
    found.batches = keys.into_iter().map(str::to_owned).collect();
    found.unsettled = imported.unsettled;
    (imported.unsure > 0).then(|| {
        let what = format!(
            "{} rows are imported that restore_rows() may have put back last: the storage cannot tell",
            imported.unsure
        );
        Line::about(found.name(), Action::Warning, what)
    })
}

/// Keys of a version that are not there, or have another size.
fn missing_of<'a>(found: &'a Found, listed: &Listed<'_>, store: &BlockingStore) -> Vec<&'a str> {
    if let Some(link) = &found.missing_link {
        return vec![link.as_str()];
    }
    let manifests = std::iter::once(&found.key).chain(&found.batches).map(|key| (key.as_str(), None));
    let objects = found.manifest.objects.iter().map(|object| (object.key.as_str(), Some(object.bytes)));
    manifests.chain(objects).filter(|(key, bytes)| !listed.has(store, key, *bytes)).map(|(key, _)| key).collect()
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

/// Why a version does not do, if so: by a listing of its table, and with `verify` by reading all of it.
pub(super) fn missing(found: &Found, listed: &Listed<'_>, store: &BlockingStore, verify: bool) -> Option<String> {
    let missing = missing_of(found, listed, store);
    if !missing.is_empty() {
        return Some(format!("objects are missing or have another size: {}", missing.join(", ")));
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
