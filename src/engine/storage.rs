//! Which storage a call uses, and the checks of a storage.

use archive_core::ErrorKind;
use archive_core::store::{BlockingStore, PutMode};
use bytes::Bytes;
use pgrx::pg_sys;

use crate::catalog::policy::{self, Policy};
use crate::catalog::{self, storage};
use crate::error::{Error, Result, SqlState};
use crate::guc;
use crate::pg::user;

/// The storage for a call: as named, else by policy, else `archive_ext.default_storage`. Nothing is invented.
pub fn choose(named: Option<&str>, policy: &Policy) -> Result<String> {
    named
        .map(str::to_owned)
        .or_else(|| policy.storage.clone())
        .or_else(guc::default_storage)
        .ok_or_else(storage::none_configured)
}

/// One line of `check_storage`.
#[derive(Debug)]
pub struct Check {
    /// What was tried.
    pub name: String,
    /// Whether it worked.
    pub ok: bool,
    /// How long it took.
    pub milliseconds: f64,
    /// What was seen, or the error.
    pub detail: String,
}

/// Tries every operation the archive needs, with the caller's credentials. Leaves nothing behind but the marker of
/// nobody: the claim on the prefix is only looked at.
pub fn check(name: &str) -> Result<Vec<Check>> {
    storage::options(name)?;
    storage::check_usage(name, user::current())?;
    let store = storage::open(name, user::current())?;
    let mut checks = probe(&store);
    checks.extend(signing_key(name));
    Ok(checks)
}

/// Whether the key that signs manifests can be read, where there is one, and its public half.
fn signing_key(name: &str) -> Option<Check> {
    let check = |ok, detail| Check { name: "signing key".to_owned(), ok, milliseconds: 0.0, detail };
    match storage::signing_key(name) {
        Ok(key) => key.map(|key| check(true, format!("public key {}", key.public_key()))),
        Err(error) => Some(check(false, error.message().to_owned())),
    }
}

fn probe(store: &BlockingStore) -> Vec<Check> {
    archive_core::store::probe(store)
        .into_iter()
        .map(|probe| Check {
            name: probe.check.to_owned(),
            ok: probe.error.is_none(),
            milliseconds: probe.elapsed.as_secs_f64() * 1000.0,
            detail: match probe.error {
                Some(error) => error.to_string(),
                None => probe.detail,
            },
        })
        .collect()
}

/// Takes over the prefix of a storage that another cluster claimed. For superusers, and members of `archive_ext_admin` who
/// may use the storage (42501).
pub fn adopt(name: &str) -> Result<()> {
    if !user::administers_archives() {
        return Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied to adopt a storage")
            .hint("It takes a superuser or a member of archive_ext_admin."));
    }
    storage::options(name)?;
    storage::check_usage(name, user::current())?;
    let store = storage::open(name, user::current())?;
    let before = storage::claimed_location(name)?;
    storage::adopt(name, &store)?;
    before.map_or(Ok(()), |before| catalog::chain::moved(name, &before, &store))
}

/// Why this database must not touch its storages: its catalog is a copy (a promoted standby, a clone, a restored dump)
/// of the one that claimed them. `None` when it is the original.
pub fn copied() -> Result<Option<String>> {
    let storages = storage::claimed_by_another()?;
    Ok(storages.first().map(|name| {
        format!(
            "storage \"{name}\" was claimed before this copy was made, by another cluster, timeline or database; if that \
             one is gone for good, a superuser takes it over with adopt_storage('{name}')"
        )
    }))
}

/// Opens the storage of an archive with the credentials of the table's owner, who must have USAGE on it.
pub fn open_for(name: &str, owner: pg_sys::Oid) -> Result<BlockingStore> {
    storage::options(name)?;
    storage::check_usage(name, owner)?;
    storage::open(name, owner)
}

/// Opens the storage of an archive for writing: what is written is locked as the policy of `source` wants it, and at least as the storage
/// does. Errors: those of [`open_for`], and 0A000 where the storage cannot lock what the policy wants locked.
pub fn open_to_write(name: &str, source: pg_sys::Oid, owner: pg_sys::Oid) -> Result<BlockingStore> {
    storage::options(name)?;
    storage::check_usage(name, owner)?;
    storage::open_locking(name, owner, policy::of(source)?.object_lock()?)
}

/// The same for what takes the place of archived objects, or is put back among them: a storage that cannot lock has them unlocked, and
/// nobody is kept from erasing or repairing for that.
pub fn open_to_rewrite(name: &str, source: pg_sys::Oid, owner: pg_sys::Oid) -> Result<BlockingStore> {
    match storage::options(name)?.cannot_lock() {
        Some(_) => open_for(name, owner),
        None => open_to_write(name, source, owner),
    }
}

/// Writes an object that has its content in its name. One that is there already was left by an attempt that rolled back; the
/// read-back decides whether it is what it should be.
pub fn put_once(store: &BlockingStore, key: &str, bytes: Bytes) -> Result<()> {
    match store.put(key, bytes, PutMode::CreateOnly) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => Ok(other.map(drop)?),
    }
}
