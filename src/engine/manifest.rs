//! Writing and finding manifests.

use archive_core::codec::Digest;
use archive_core::manifest::{
    ArchiveRelations, BatchManifest, DatabaseFacts, Family, MANIFEST_FORMAT, Manifest, ManifestObject, Source,
};
use archive_core::naming::{self, BatchName};
use archive_core::schema::TableSchema;
use archive_core::store::{BlockingStore, PutMode};
use pgrx::pg_sys;

use super::plan::Plan;
use super::{chain, storage};
use crate::catalog;
use crate::catalog::row_set::RowSet;
use crate::error::{Error, Result, SqlState};
use crate::export::Exported;
use crate::partition::archive_tree::ArchiveNames;
use crate::partition::discover::{self, Leaf};
use crate::partition::{ddl, prerequisites, root_ddl};
use crate::pg::{spi, user};

/// Key of a version's manifest.
pub fn key(plan: &Plan, version: u32) -> String {
    naming::manifest_key(&plan.root_name.0, &plan.root_name.1, &plan.leaf.name, version)
}

/// The version that a new export of a partition gets.
pub fn next_version_of(plan: &Plan) -> Result<u32> {
    let known = catalog::partition::find(plan.root, &plan.leaf.schema, &plan.leaf.name)?;
    let known = known.map_or(0, |known| known.version.cast_unsigned());
    next_version(&plan.store, &plan.root_name, &plan.leaf.name, known)
}

/// The version a new export gets: one above every manifest in the storage and every version in the catalog. A version
/// without a manifest was never finished and is written again. `known` is the catalog's.
pub fn next_version(store: &BlockingStore, table: &(String, String), name: &str, known: u32) -> Result<u32> {
    let prefix = naming::manifest_prefix(&table.0, &table.1, name);
    let stored =
        store.list(&prefix)?.iter().filter_map(|object| naming::version_of(&object.key, name)).max().unwrap_or(0);
    Ok(stored.max(known) + 1)
}

/// What a manifest is about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The partition; a table that is archived row by row.
    pub leaf: &'a Leaf,
    /// Its name in the archive.
    pub name: &'a str,
    /// The managed table.
    pub root: pg_sys::Oid,
    /// Schema and name of the root.
    pub root_name: &'a (String, String),
    /// The partitioned table right above; `None` for a table that is not partitioned.
    pub parent: Option<pg_sys::Oid>,
    /// Its archive relations.
    pub names: &'a ArchiveNames,
    /// The family it is archived with.
    pub family: Option<&'a Family>,
}

impl<'a> Subject<'a> {
    /// The partition of a plan.
    pub fn of(plan: &'a Plan) -> Self {
        Self {
            leaf: &plan.leaf,
            name: &plan.leaf.name,
            root: plan.root,
            root_name: &plan.root_name,
            parent: Some(plan.parent),
            names: &plan.names,
            family: plan.family.as_ref(),
        }
    }
}

/// Builds the manifest of an export.
pub fn build(subject: Subject<'_>, schema: TableSchema, exported: Exported, version: u32) -> Result<Manifest> {
    let (server_version, database, encoding, system_identifier) = user::elevated(|| {
        spi::one(
            "SELECT current_setting('server_version'), current_database()::text, getdatabaseencoding()::text,
                    (SELECT system_identifier::text FROM pg_control_system())",
            &[],
            |row| Ok((row.need::<String>(1)?, row.need::<String>(2)?, row.need::<String>(3)?, row.need::<String>(4)?)),
        )
    })?;
    let rows = exported.objects.iter().map(|object| object.rows).sum();
    let bytes = exported.objects.iter().map(|object| object.bytes).sum();
    let mut manifest = Manifest {
        format: MANIFEST_FORMAT,
        source: Source {
            database,
            schema: subject.root_name.0.clone(),
            table: subject.root_name.1.clone(),
            partition_schema: subject.leaf.schema.clone(),
            partition: subject.name.to_owned(),
            bounds: subject.leaf.bounds.clone(),
            partition_key: subject.parent.map(discover::partition_key).transpose()?,
            local_bytes: Some(subject.leaf.total_bytes),
        },
        version,
        created_at: catalog::storage::now_text()?,
        server_version,
        database_encoding: encoding,
        extension_version: env!("CARGO_PKG_VERSION").to_owned(),
        system_identifier,
        schema,
        digest_algorithm: archive_core::codec::DIGEST_ALGORITHM.to_owned(),
        digest: exported.digest,
        rows,
        bytes,
        objects: exported.objects,
        ddl: ddl::record(subject.leaf, subject.root)?,
        database: None,
        collations: Vec::new(),
        extensions: Vec::new(),
        sequences: Vec::new(),
        root: None,
        archive: None,
        column_map: Vec::new(),
        family: None,
        previous: None,
        signature: None,
    };
    describe_surroundings(subject, &mut manifest)?;
    Ok(manifest)
}

/// Records what an empty database needs besides the partition: its root, sequences, extensions.
pub fn describe_surroundings(subject: Subject<'_>, manifest: &mut Manifest) -> Result<()> {
    let (leaf, root) = (subject.leaf.oid, subject.root);
    manifest.format = MANIFEST_FORMAT;
    manifest.database = Some(database_facts()?);
    (manifest.collations, manifest.extensions, manifest.sequences) = user::elevated(|| {
        Ok::<_, Error>((
            prerequisites::collations(leaf, root)?,
            prerequisites::extensions(leaf, root)?,
            prerequisites::sequences(leaf, root)?,
        ))
    })?;
    manifest.root = subject.parent.map(|parent| root_ddl::record(root, parent)).transpose()?;
    manifest.archive =
        Some(ArchiveRelations { schema: subject.names.schema.clone(), table: subject.names.table.clone() });
    manifest.column_map = catalog::column_map::of_source(root)?.columns;
    manifest.family = subject.family.cloned();
    Ok(())
}

fn database_facts() -> Result<DatabaseFacts> {
    // The caller's, which is another one while elevated.
    let timezone: String = spi::one("SELECT pg_catalog.current_setting('TimeZone')", &[], |row| row.need(1))?;
    user::elevated(|| {
        spi::one(
            "SELECT getdatabaseencoding()::text, datcollate::text, datctype::text,
                    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text
             FROM pg_database WHERE datname = current_database()",
            &[],
            |row| {
                Ok(DatabaseFacts {
                    encoding: row.need(1)?,
                    collate: row.need(2)?,
                    ctype: row.need(3)?,
                    lsn: row.need(4)?,
                    timezone: timezone.clone(),
                })
            },
        )
    })
}

/// Writes a manifest as the next link of its storage's chain: after this its version never changes.
pub fn put(storage: &str, store: &BlockingStore, key: &str, manifest: &mut Manifest) -> Result<()> {
    let sealed = chain::seal(storage, store, manifest)?;
    failpoint!("manifest_made");
    store.put(key, sealed.json.clone(), PutMode::CreateOnly)?;
    failpoint!("manifest_put");
    catalog::chain::append(storage, store, key, &sealed)
}

/// The next manifest of a row set, which this transaction has locked: by the step `number` of the job with these hex digits.
pub fn next_batch(
    set: &RowSet,
    (job, number): (&str, u32),
    digest: Digest,
    objects: Vec<ManifestObject>,
) -> Result<BatchManifest> {
    let (now, after) = (catalog::storage::now_text()?, set.last_batch.clone());
    let manifest = BatchManifest::new(&set.manifest_key, (job, number), now, digest, objects, after);
    Ok(manifest.written_by(catalog::storage::transaction_text()?))
}

/// Writes a manifest that says what an import left unsettled, before another one follows: else the next import would take the row set
/// for what it was not. Arguments and errors as of [`next_batch`] and [`put_batch`].
pub fn settle(
    store: &BlockingStore,
    set: &mut RowSet,
    now: &(String, String),
    step: (&str, u32),
    hint: &str,
) -> Result<()> {
    let Some(unsettled) = set.unsettled.take() else { return Ok(()) };
    let mut digest = Digest::default();
    unsettled.objects.iter().for_each(|object| digest.merge(&object.digest));
    let manifest = next_batch(set, step, digest, unsettled.objects)?.replacing(unsettled.replaces, 0);
    let key = put_batch(store, set, now, manifest, hint)?;
    catalog::row_set::settled(set, &key)?;
    set.last_batch = Some(key);
    Ok(())
}

/// Writes the next manifest of a row set under a name that has its hash, as the next link of its storage's chain, and reads it back; its
/// key. `now` is what the table is called now.
///
/// Errors: XX001 with this hint when another one is read back.
pub fn put_batch(
    store: &BlockingStore,
    set: &RowSet,
    now: &(String, String),
    mut manifest: BatchManifest,
    hint: &str,
) -> Result<String> {
    let sealed = chain::seal(&set.storage, store, &mut manifest)?;
    let (schema, table) = set.table_name(now);
    let name = BatchName { job: &manifest.job, number: manifest.number, sha256: &sealed.sha256 };
    let key = naming::batch_manifest_key(schema, table, &set.name, name);
    failpoint!("batch_manifest_made");
    storage::put_once(store, &key, sealed.json.clone())?;
    failpoint!("batch_manifest_put");
    if load_batch(store, &key)? == manifest {
        catalog::chain::append(&set.storage, store, &key, &sealed)?;
        return Ok(key);
    }
    Err(Error::new(SqlState::ERRCODE_DATA_CORRUPTED, format!("archive object \"{key}\" failed verification"))
        .detail("The manifest read back is not the manifest written.")
        .hint(hint))
}

/// Reads the manifest of a batch through a fresh request and validates it.
pub fn load_batch(store: &BlockingStore, key: &str) -> Result<BatchManifest> {
    Ok(BatchManifest::from_json(&text(store, key)?)?)
}

/// Reads a manifest through a fresh request and validates it.
pub fn load(store: &BlockingStore, key: &str) -> Result<Manifest> {
    Ok(Manifest::from_json(&text(store, key)?)?)
}

fn text(store: &BlockingStore, key: &str) -> Result<String> {
    String::from_utf8(store.get(key)?.to_vec())
        .map_err(|_| Error::new(SqlState::ERRCODE_DATA_CORRUPTED, format!("manifest \"{key}\" is not valid UTF-8")))
}
