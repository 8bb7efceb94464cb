//! Storages: foreign servers of `archive_fdw`, their credentials, and the claim on their prefix.

use std::path::PathBuf;

use archive_core::ErrorKind;
use archive_core::chain::SigningKey;
use archive_core::store::{
    BlockingStore, ClaimTime, CredentialSource, Credentials, ObjectLock, OwnerIdentity, OwnerMarker, StorageOptions,
    UserMappingOptions,
};
use pgrx::pg_sys;

use super::{place, writers};
use crate::error::{Error, Result, SqlState};
use crate::guc;
use crate::pg::{clock, interrupts, io, lock, spi, user};

type OptionList = Vec<(String, String)>;

/// The server's options, if it is a server of `archive_fdw`.
fn server_options(storage: &str) -> Result<Option<OptionList>> {
    let server = user::elevated(|| {
        spi::optional(
            "SELECT s.oid FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
             WHERE s.srvname = $1::name AND w.fdwname = 'archive_fdw'",
            &[storage.into()],
            |row| row.need::<pg_sys::Oid>(1),
        )
    })?;
    server.map(|oid| option_list("SELECT unnest(srvoptions) FROM pg_foreign_server WHERE oid = $1", oid)).transpose()
}

fn option_list(sql: &str, oid: pg_sys::Oid) -> Result<OptionList> {
    let options = user::elevated(|| spi::rows(sql, &[oid.into()], |row| row.need::<String>(1)))?;
    Ok(options
        .iter()
        .filter_map(|option| option.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect())
}

fn mapping_options(storage: &str, owner: pg_sys::Oid) -> Result<Option<OptionList>> {
    let mapping = user::elevated(|| {
        spi::optional(
            "SELECT m.oid FROM pg_user_mapping m JOIN pg_foreign_server s ON s.oid = m.umserver
             WHERE s.srvname = $1::name AND m.umuser IN ($2, 0) ORDER BY m.umuser DESC LIMIT 1",
            &[storage.into(), owner.into()],
            |row| row.need::<pg_sys::Oid>(1),
        )
    })?;
    mapping.map(|oid| option_list("SELECT unnest(umoptions) FROM pg_user_mapping WHERE oid = $1", oid)).transpose()
}

/// The storage's typed options. Errors: 42704 when there is no such storage.
pub fn options(storage: &str) -> Result<StorageOptions> {
    let Some(options) = server_options(storage)? else { return Err(unknown(storage)) };
    Ok(StorageOptions::parse(options.iter().map(|(name, value)| (name.as_str(), value.as_str())))?)
}

/// The key that signs the manifests of a storage, if it has one.
///
/// Errors: 58P01, 28000 and 22023, as [`SigningKey::read`] says.
pub fn signing_key(storage: &str) -> Result<Option<SigningKey>> {
    let path = options(storage)?.signing_key;
    Ok(path.map(|path| SigningKey::read(&path)).transpose()?)
}

fn unknown(storage: &str) -> Error {
    Error::new(SqlState::ERRCODE_UNDEFINED_OBJECT, format!("storage \"{storage}\" does not exist")).hint(format!(
        "CREATE SERVER {} FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file:///var/lib/postgresql/archive'); \
         or location 's3://bucket/prefix', region '…'.",
        pgrx::spi::quote_identifier(storage)
    ))
}

/// The error for a call that found no storage: nothing is invented (P12).
pub fn none_configured() -> Error {
    Error::new(SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "no archive storage is configured").hint(
        "CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file:///var/lib/postgresql/archive'); \
         then SET archive_ext.default_storage = 'cold', or name the storage in the call.",
    )
}

/// Whether `role` may use the storage (USAGE on the foreign server).
pub fn check_usage(storage: &str, role: pg_sys::Oid) -> Result<()> {
    let allowed = user::elevated(|| {
        spi::one("SELECT has_server_privilege($1::oid, $2::text, 'USAGE')", &[role.into(), storage.into()], |row| {
            row.need::<bool>(1)
        })
    })?;
    if allowed {
        return Ok(());
    }
    let role = user::name_of(role);
    Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("permission denied for storage \"{storage}\""))
        .detail(format!("Role \"{role}\" lacks USAGE on the foreign server."))
        .hint(format!("GRANT USAGE ON FOREIGN SERVER {storage} TO {role};")))
}

/// Opens a storage with the credentials of `owner`'s user mapping (or PUBLIC's). No request is sent. Errors: 42501 when
/// `archive_ext.allowed_endpoints` does not allow its host.
pub fn open(storage: &str, owner: pg_sys::Oid) -> Result<BlockingStore> {
    open_with(storage, &options(storage)?, owner)
}

/// The same for writing objects that a policy wants locked. Errors: 0A000 where the storage locks none.
pub fn open_locking(storage: &str, owner: pg_sys::Oid, lock: Option<ObjectLock>) -> Result<BlockingStore> {
    open_with(storage, &options(storage)?.locking(lock, clock::unix_now())?, owner)
}

fn open_with(storage: &str, options: &StorageOptions, owner: pg_sys::Oid) -> Result<BlockingStore> {
    let credentials = match (&options.credentials, options.location.is_file()) {
        (_, true) => None,
        (CredentialSource::Environment, false) => Some(Credentials::Environment),
        (CredentialSource::File(path), false) => Some(Credentials::File(PathBuf::from(path))),
        (CredentialSource::UserMapping, false) => Some(user_mapping(storage, owner)?),
    };
    let runtime = io::runtime()?;
    let store = archive_core::store::open_within(options, credentials, &guc::allowed_endpoints()?, &runtime)?;
    Ok(BlockingStore::new(store, runtime, interrupts::check_in_wait))
}

/// The same, but that what it cannot give is read from `copies`, if that can be opened.
pub fn open_for_reading(storage: &str, copies: Option<&str>, owner: pg_sys::Oid) -> Result<BlockingStore> {
    let store = open(storage, owner)?;
    Ok(match copies.map(|copies| open(copies, owner)) {
        Some(Ok(second)) => store.with_fallback(&second),
        // Then there is only one.
        Some(Err(_)) | None => store,
    })
}

fn user_mapping(storage: &str, owner: pg_sys::Oid) -> Result<Credentials> {
    let role = user::name_of(owner);
    let Some(options) = mapping_options(storage, owner)? else {
        return Err(Error::new(
            SqlState::ERRCODE_UNDEFINED_OBJECT,
            format!("no credentials for storage \"{storage}\": role \"{role}\" has no user mapping"),
        )
        .hint(format!(
            "CREATE USER MAPPING FOR {role} SERVER {storage} OPTIONS (access_key_id '…', secret_access_key '…'); \
             or let a superuser set the server's option credentials to 'environment' or 'file:/path'."
        )));
    };
    let options = options.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    Ok(Credentials::Static(UserMappingOptions::parse(options)?))
}

/// Claims the storage's prefix for this database, or proves that it is ours: before any put or delete. The key that signs manifests must
/// be readable, so that nothing is exported in vain.
pub fn claim(storage: &str, store: &BlockingStore) -> Result<()> {
    place::refuse_moved(storage, store)?;
    writers::enter(store)?;
    signing_key(storage)?;
    let identity = identity(storage, store)?;
    if claimed(storage, store)? {
        return check_marker(storage, store, &identity);
    }
    let now = now_text()?;
    let now = ClaimTime { text: &now, unix: clock::unix_now() };
    let identity = match OwnerMarker::claim(store, &identity, now) {
        // Another session of this database may have claimed it meanwhile: its incarnation is ours.
        Err(error) if error.kind() == ErrorKind::NotOwner => {
            let winner = self::identity(storage, store)?;
            OwnerMarker::claim(store, &winner, now)?;
            winner
        }
        claimed => claimed.map(|_| identity)?,
    };
    // In time or not: then another run notes it with its commit, and should it roll back, the marker is taken up again.
    lock::within(guc::lock_timeout_ms(), || remember_claim(storage, store, &identity)).map(drop)
}

/// Proves that the storage's prefix is ours, without claiming it: before objects are removed (55000).
pub fn require_ours(storage: &str, store: &BlockingStore) -> Result<()> {
    place::refuse_moved_or_renamed(storage, store)?;
    let identity = identity(storage, store)?;
    if claimed(storage, store)? || OwnerMarker::check(store, &identity)?.is_some() {
        return check_marker(storage, store, &identity);
    }
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("storage \"{storage}\" is not claimed by this database"),
    )
    .detail("Nothing was archived to it yet.")
    .hint("The first archive run claims it."))
}

/// Refuses all but those who administer archives and the owner of the foreign server (42501; 42704 when there is none).
pub fn check_administers(storage: &str) -> Result<()> {
    options(storage)?;
    if administers(storage)? {
        return Ok(());
    }
    Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("must be owner of foreign server {storage}"))
        .hint("A superuser, a member of archive_ext_admin or the foreign server's owner can do this."))
}

/// Whether the current user administers archives or owns the foreign server.
pub fn administers(storage: &str) -> Result<bool> {
    let owner = user::elevated(|| {
        spi::optional("SELECT srvowner FROM pg_foreign_server WHERE srvname = $1::name", &[storage.into()], |row| {
            row.need::<pg_sys::Oid>(1)
        })
    })?;
    Ok(user::administers_archives() || owner.is_some_and(user::has_privileges_of))
}

fn claimed(storage: &str, store: &BlockingStore) -> Result<bool> {
    user::elevated(|| {
        spi::one(
            "SELECT EXISTS (SELECT FROM archive_ext.storage_claim WHERE storage = $1::name AND location = $2)",
            &[storage.into(), store.location().to_string().into()],
            |row| row.need(1),
        )
    })
}

/// A prefix claimed before must still have its marker: a directory that is not mounted has none.
fn check_marker(storage: &str, store: &BlockingStore, identity: &OwnerIdentity) -> Result<()> {
    if OwnerMarker::check(store, identity)?.is_some() {
        return Ok(());
    }
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("storage \"{storage}\" has lost the marker of its owner"),
    )
    .detail(format!("{} was claimed by this database, and is empty or another place now.", store.location()))
    .hint("Check that the directory is mounted or the bucket is the right one; a superuser's adopt_storage(…) claims it anew."))
}

/// Takes the prefix over from whichever cluster claimed it. Callers check for a superuser.
pub fn adopt(storage: &str, store: &BlockingStore) -> Result<()> {
    let identity = OwnerIdentity { incarnation: new_incarnation()?, ..identity(storage, store)? };
    OwnerMarker::adopt(store, &identity, ClaimTime { text: &now_text()?, unix: clock::unix_now() })?;
    remember_claim(storage, store, &identity)?;
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.storage_claim SET adopted_at = clock_timestamp() WHERE storage = $1::name",
            &[storage.into()],
        )
    })
    .map(drop)
}

/// The place that this catalog has claimed by the name of a storage.
pub fn claimed_location(storage: &str) -> Result<Option<String>> {
    user::elevated(|| {
        spi::optional(
            "SELECT location FROM archive_ext.storage_claim WHERE storage = $1::name",
            &[storage.into()],
            |row| row.need(1),
        )
    })
}

/// When this catalog took the storage over with what was in it, in seconds since 1970: by adopting it, or by claiming it though its
/// marker alone was gone.
pub fn taken_over_at(storage: &str, store: &BlockingStore) -> Result<Option<i64>> {
    let adopted = user::elevated(|| {
        spi::optional(
            "SELECT floor(extract(epoch FROM adopted_at))::bigint FROM archive_ext.storage_claim WHERE storage = $1::name",
            &[storage.into()],
            |row| row.get::<i64>(1),
        )
    })?;
    let claimed = OwnerMarker::load(store)?.and_then(|marker| marker.objects_before);
    Ok(adopted.flatten().max(claimed))
}

/// This database as the marker knows it. The incarnation is that of the catalog, or random since a storage was adopted. A claim
/// whose transaction rolled back left a marker but no row: the catalog's incarnation tells it from the claim of a catalog that
/// is gone, whose objects this one knows nothing of.
fn identity(storage: &str, store: &BlockingStore) -> Result<OwnerIdentity> {
    let (system_identifier, timeline) = here()?;
    let claimed = user::elevated(|| {
        spi::optional(
            "SELECT incarnation FROM archive_ext.storage_claim WHERE storage = $1::name AND location = $2",
            &[storage.into(), store.location().to_string().into()],
            |row| row.need::<String>(1),
        )
    })?;
    let incarnation = match claimed {
        Some(incarnation) => incarnation,
        None => own_incarnation()?,
    };
    Ok(OwnerIdentity { system_identifier, timeline, incarnation })
}

/// `<system identifier>/<database OID>`, and the timeline.
fn here() -> Result<(String, u32)> {
    user::elevated(|| {
        spi::one(
            "SELECT (SELECT system_identifier FROM pg_control_system()) || '/'
                    || (SELECT oid FROM pg_database WHERE datname = current_database()),
                    -- of the log that is written now: pg_control_checkpoint() tells a promoted copy's own timeline only
                    -- after its first checkpoint
                    (CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
                          ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END)",
            &[],
            |row| Ok((row.need::<String>(1)?, row.need::<i32>(2)?.unsigned_abs())),
        )
    })
}

/// Storages that this catalog claims, but for the database, cluster or timeline that it was copied from. No request is
/// sent: the claim tells who made it.
pub fn claimed_by_another() -> Result<Vec<String>> {
    let (system_identifier, timeline) = here()?;
    let claims = user::elevated(|| {
        spi::rows(
            "SELECT storage::text, location FROM archive_ext.storage_claim
             WHERE system_identifier <> $1 OR timeline <> $2 ORDER BY storage",
            &[system_identifier.as_str().into(), timeline.cast_signed().into()],
            |row| Ok((row.need::<String>(1)?, row.need::<String>(2)?)),
        )
    })?;
    let current = |(storage, location): &(String, String)| {
        // A storage that is gone, or another place by now, is not what was claimed.
        options(storage).is_ok_and(|options| options.location.to_string() == *location)
    };
    Ok(claims.into_iter().filter(current).map(|(storage, _)| storage).collect())
}

/// The catalog's own; the older one where a dump brought it along.
fn own_incarnation() -> Result<String> {
    user::elevated(|| {
        spi::one(
            "SELECT incarnation FROM archive_ext.catalog_identity ORDER BY created_at, incarnation LIMIT 1",
            &[],
            |row| row.need(1),
        )
    })
}

fn new_incarnation() -> Result<String> {
    spi::one("SELECT pg_catalog.replace(pg_catalog.gen_random_uuid()::text, '-', '')", &[], |row| row.need(1))
}

fn remember_claim(storage: &str, store: &BlockingStore, identity: &OwnerIdentity) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "INSERT INTO archive_ext.storage_claim (storage, location, incarnation, system_identifier, timeline)
             VALUES ($1::name, $2, $3, $4, $5)
             ON CONFLICT (storage) DO UPDATE SET location = excluded.location, incarnation = excluded.incarnation,
               system_identifier = excluded.system_identifier, timeline = excluded.timeline",
            &[
                storage.into(),
                store.location().to_string().into(),
                identity.incarnation.as_str().into(),
                identity.system_identifier.as_str().into(),
                identity.timeline.cast_signed().into(),
            ],
        )
    })?;
    Ok(())
}

/// The time now as RFC 3339 text in UTC.
pub fn now_text() -> Result<String> {
    spi::one(
        "SELECT pg_catalog.to_char(pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
        &[],
        |row| row.need(1),
    )
}

/// What tells this transaction from others of this database.
pub fn transaction_text() -> Result<String> {
    spi::one("SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text", &[], |row| row.need(1))
}
