//! Writing and finding manifests.

use archive_core::manifest::{ArchiveRelations, DatabaseFacts, MANIFEST_FORMAT, Manifest, Source};
use archive_core::naming;
use archive_core::store::{BlockingStore, PutMode};

use super::plan::Plan;
use crate::catalog;
use crate::error::{Error, Result, SqlState};
use crate::export::{ExportSource, Exported};
use crate::partition::{ddl, discover, prerequisites, root_ddl};
use crate::pg::{spi, user};

/// Key of a version's manifest.
pub fn key(plan: &Plan, version: u32) -> String {
    naming::manifest_key(&plan.root_name.0, &plan.root_name.1, &plan.leaf.name, version)
}

/// The version a new export gets: one above every manifest in the storage and every version in the catalog. A version
/// without a manifest was never finished and is written again.
pub fn next_version(plan: &Plan) -> Result<u32> {
    let prefix = naming::manifest_prefix(&plan.root_name.0, &plan.root_name.1, &plan.leaf.name);
    let stored = plan
        .store
        .list(&prefix)?
        .iter()
        .filter_map(|object| naming::version_of(&object.key, &plan.leaf.name))
        .max()
        .unwrap_or(0);
    let known = catalog::partition::find(plan.root, &plan.leaf.schema, &plan.leaf.name)?;
    let known = known.map_or(0, |known| known.version.cast_unsigned());
    Ok(stored.max(known) + 1)
}

/// Builds the manifest of an export.
pub fn build(plan: &Plan, source: &ExportSource, exported: Exported, version: u32) -> Result<Manifest> {
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
            schema: plan.root_name.0.clone(),
            table: plan.root_name.1.clone(),
            partition_schema: plan.leaf.schema.clone(),
            partition: plan.leaf.name.clone(),
            bounds: plan.leaf.bounds.clone(),
            partition_key: Some(discover::partition_key(plan.parent)?),
            local_bytes: Some(plan.leaf.total_bytes),
        },
        version,
        created_at: catalog::storage::now_text()?,
        server_version,
        database_encoding: encoding,
        extension_version: env!("CARGO_PKG_VERSION").to_owned(),
        system_identifier,
        schema: source.schema.clone(),
        digest_algorithm: archive_core::codec::DIGEST_ALGORITHM.to_owned(),
        digest: exported.digest,
        rows,
        bytes,
        objects: exported.objects,
        ddl: ddl::record(&plan.leaf, plan.root)?,
        database: None,
        collations: Vec::new(),
        extensions: Vec::new(),
        sequences: Vec::new(),
        root: None,
        archive: None,
        column_map: Vec::new(),
        family: None,
    };
    describe_surroundings(plan, &mut manifest)?;
    Ok(manifest)
}

/// Records what an empty database needs besides the partition: its root, sequences, extensions.
pub fn describe_surroundings(plan: &Plan, manifest: &mut Manifest) -> Result<()> {
    let (leaf, root) = (plan.leaf.oid, plan.root);
    manifest.format = MANIFEST_FORMAT;
    manifest.database = Some(database_facts()?);
    (manifest.collations, manifest.extensions, manifest.sequences) = user::elevated(|| {
        Ok::<_, Error>((
            prerequisites::collations(leaf, root)?,
            prerequisites::extensions(leaf, root)?,
            prerequisites::sequences(leaf, root)?,
        ))
    })?;
    manifest.root = Some(root_ddl::record(root, plan.parent)?);
    manifest.archive = Some(ArchiveRelations { schema: plan.names.schema.clone(), table: plan.names.table.clone() });
    manifest.column_map = catalog::column_map::of_source(root)?.columns;
    manifest.family.clone_from(&plan.family);
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

/// Writes a manifest: after this its version never changes.
pub fn put(store: &BlockingStore, key: &str, manifest: &Manifest) -> Result<()> {
    store.put(key, manifest.to_json()?.into_bytes().into(), PutMode::CreateOnly)?;
    Ok(())
}

/// Reads a manifest through a fresh request and validates it.
pub fn load(store: &BlockingStore, key: &str) -> Result<Manifest> {
    let bytes = store.get(key)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Error::new(SqlState::ERRCODE_DATA_CORRUPTED, format!("manifest \"{key}\" is not valid UTF-8")))?;
    Ok(Manifest::from_json(text)?)
}
