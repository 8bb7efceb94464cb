//! The validator: which options a server, a user mapping and a foreign table may have.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use archive_core::store::{CredentialSource, Location, StorageOptions, UserMappingOptions};
use pgrx::{PgLogLevel, ereport, pg_sys};

use crate::error::{Error, Result, SqlState};
use crate::guc;
use crate::pg::{foreign, user};

/// The one option of a foreign table.
const PARTITION_ID: &str = "partition_id";

/// Checks `name=value` options of an object in the system catalog `catalog`.
pub(super) fn validate(options: &[String], catalog: pg_sys::Oid) -> Result<()> {
    let options: Vec<(&str, &str)> =
        options.iter().map(|option| option.split_once('=').unwrap_or((option, ""))).collect();
    match catalog {
        pg_sys::ForeignServerRelationId => server(&options),
        pg_sys::UserMappingRelationId => Ok(UserMappingOptions::parse(options).map(|_| ())?),
        pg_sys::ForeignTableRelationId => table(&options),
        pg_sys::ForeignDataWrapperRelationId => none(&options, "foreign data wrapper archive_fdw"),
        _ => none(&options, "columns of archived partitions"),
    }
}

fn unknown(what: &str, name: &str) -> Error {
    Error::new(SqlState::ERRCODE_FDW_INVALID_OPTION_NAME, format!("unknown {what} \"{name}\""))
}

fn none(options: &[(&str, &str)], of: &str) -> Result<()> {
    match options.first() {
        None => Ok(()),
        Some((name, _)) => Err(unknown("option", name).hint(format!("There are no valid options for {of}."))),
    }
}

fn table(options: &[(&str, &str)]) -> Result<()> {
    if let Some((name, _)) = options.iter().find(|(name, _)| *name != PARTITION_ID) {
        return Err(unknown("foreign table option", name).hint(format!("Valid options: {PARTITION_ID}.")));
    }
    partition_id(options.iter().copied()).map(|_| ())
}

/// The partition that a foreign table's options name.
pub(super) fn partition_id<'a>(options: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<i64> {
    let Some((_, id)) = options.into_iter().find(|(name, _)| *name == PARTITION_ID) else {
        return Err(Error::new(
            SqlState::ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED,
            format!("option \"{PARTITION_ID}\" is missing"),
        )
        .hint("Foreign tables of archive_fdw are created by archive_partition()."));
    };
    id.parse().ok().filter(|id| *id > 0).ok_or_else(|| {
        Error::new(SqlState::ERRCODE_INVALID_PARAMETER_VALUE, format!("invalid value for option \"{PARTITION_ID}\""))
            .detail("The value must be a positive integer.")
    })
}

fn server(options: &[(&str, &str)]) -> Result<()> {
    let parsed = StorageOptions::parse(options.iter().copied())?;
    check_credential_source(&parsed.credentials)?;
    check_signing_key(&parsed)?;
    match &parsed.location {
        Location::File(directory) => check_directory(directory),
        Location::S3 { .. } => Ok(guc::allowed_endpoints()?.check(&parsed)?),
    }
}

/// The server's own credentials serve whoever may use the storage, so only a superuser lends them out. ALTER SERVER
/// shows the validator all options: the owner of such a server cannot send them to another endpoint either.
fn check_credential_source(source: &CredentialSource) -> Result<()> {
    let value = match source {
        CredentialSource::UserMapping => return Ok(()),
        CredentialSource::Environment => "environment",
        CredentialSource::File(_) => "file:…",
    };
    if user::is_superuser() {
        return Ok(());
    }
    Err(Error::new(
        SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("permission denied to use a storage with credentials '{value}'"),
    )
    .detail("Only a superuser may create or alter a storage that signs with the server's own credentials.")
    .hint("Use credentials 'user_mapping' and CREATE USER MAPPING, or ask a superuser."))
}

/// A file of the server's that others could have signed with.
fn check_signing_key(parsed: &StorageOptions) -> Result<()> {
    if parsed.signing_key.is_none() || user::is_superuser() {
        return Ok(());
    }
    Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied to use a storage with a signing_key")
        .detail("Only a superuser may create or alter a storage whose manifests are signed with a key of the server.")
        .hint("Ask a superuser."))
}

fn check_directory(directory: &Path) -> Result<()> {
    check_file_roles()?;
    let target = resolve(directory);
    let data = resolve(&foreign::data_directory());
    for (what, place) in reserved(&data) {
        if target.starts_with(&place) {
            return Err(Error::new(
                SqlState::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("storage location \"{}\" is inside {what}", directory.display()),
            )
            .hint("Use a directory outside PostgreSQL's own, best on another file system."));
        }
    }
    warn_of_shared_file_system(directory, &target, &data);
    Ok(())
}

fn check_file_roles() -> Result<()> {
    let roles = [
        ("pg_read_server_files", pg_sys::ROLE_PG_READ_SERVER_FILES),
        ("pg_write_server_files", pg_sys::ROLE_PG_WRITE_SERVER_FILES),
    ];
    for (name, oid) in roles {
        if !user::has_privileges_of(pg_sys::Oid::from(oid)) {
            return Err(Error::new(
                SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE,
                "permission denied to use a directory of the server as storage",
            )
            .detail(format!("The current role is no superuser and no member of {name}."))
            .hint("A superuser, or a member of pg_read_server_files and pg_write_server_files, can create it and GRANT USAGE on it."));
        }
    }
    Ok(())
}

/// Directories that belong to PostgreSQL, resolved: the data directory, its WAL and every tablespace.
fn reserved(data: &Path) -> Vec<(&'static str, PathBuf)> {
    let mut places =
        vec![("the data directory", data.to_owned()), ("the WAL directory", resolve(&data.join("pg_wal")))];
    if let Ok(links) = std::fs::read_dir(data.join("pg_tblspc")) {
        places.extend(links.flatten().map(|link| ("a tablespace", resolve(&link.path()))));
    }
    places
}

/// The path without symbolic links. What does not exist yet is taken as written below what does.
fn resolve(path: &Path) -> PathBuf {
    for (depth, ancestor) in path.ancestors().enumerate() {
        if let Ok(real) = ancestor.canonicalize() {
            let missing: Vec<_> = path.components().rev().take(depth).collect();
            return missing.into_iter().rev().fold(real, |path, component| path.join(component));
        }
    }
    path.to_owned()
}

fn warn_of_shared_file_system(directory: &Path, target: &Path, data: &Path) {
    let device = |path: &Path| path.ancestors().find_map(|path| path.metadata().ok()).map(|found| found.dev());
    if device(target).is_some() && device(target) == device(data) {
        ereport!(
            PgLogLevel::WARNING,
            SqlState::ERRCODE_WARNING,
            format!("storage location \"{}\" is on the file system of the data directory", directory.display()),
            "Archived data then frees no space, and is lost together with the database."
        );
    }
}
