//! The catalog against the storages.

use archive_core::naming::KeyName;

use super::{Line, told};
use crate::catalog::{consistency, place, storage};
use crate::engine::garbage;
use crate::error::{Error, Result};
use crate::pg::user;

/// Every storage that the current user administers.
pub(super) fn check() -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for name in consistency::storages()? {
        match storage::options(&name) {
            Err(error) if user::is_superuser() => lines.push(of_storage(&name, &error)),
            Ok(_) if storage::administers(&name)? => lines.extend(one(&name)?),
            _ => {}
        }
    }
    Ok(lines)
}

fn of_storage(name: &str, error: &Error) -> Line {
    let remedy = error.hint_text().unwrap_or("See check_storage for what works.");
    Line::new(format!("storage {name}"), told(error), remedy)
}

fn one(name: &str) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    let opened =
        storage::open(name, user::current()).and_then(|store| place::refuse_moved(name, &store).map(|()| store));
    let store = match opened {
        Ok(store) => store,
        Err(error) => return Ok(vec![of_storage(name, &error)]),
    };
    let ours = match storage::require_ours(name, &store) {
        Ok(()) => true,
        Err(error) => {
            lines.push(of_storage(name, &error));
            false
        }
    };
    match garbage::newer_than_catalog(name, &store) {
        Ok((newer, broken)) => {
            for found in broken {
                let problem = format!("object \"{}\" is {}", found.key, found.kind);
                let remedy = format!(
                    "SELECT * FROM audit_storage('{name}') records it. Copies and versions of the store may have it."
                );
                lines.push(Line::new(format!("storage {name}"), problem, remedy));
            }
            for found in newer {
                lines.extend(unknown_manifest(name, &found.key, ours)?);
            }
        }
        Err(error) => lines.push(of_storage(name, &error)),
    }
    Ok(lines)
}

/// A manifest that the catalog does not name: of a run that rolled back, or that was committed after the time recovered to.
fn unknown_manifest(storage: &str, key: &str, ours: bool) -> Result<Option<Line>> {
    let remedy = match ours {
        true => "Nothing is to be done: the table has its rows. collect_garbage removes it after the retention.",
        false => "Nothing is to be done: the table has its rows. Whoever owns the storage may need the objects.",
    };
    let line = |problem: String| Line::new(key, problem, remedy);
    let version = match KeyName::of(key) {
        KeyName::Manifest(of) => of.version,
        KeyName::BatchManifest(_) => {
            return Ok(Some(line(
                "it is of a batch of rows that this catalog does not know to be archived".to_owned(),
            )));
        }
        _ => return Ok(None),
    };
    let stem = key.strip_suffix(&format!(".v{version}.json")).unwrap_or(key);
    Ok(match consistency::version_beside(stem, storage)? {
        Some((known, _)) if known > 0 && i64::from(known) > i64::from(version) => None,
        Some((known, status)) => {
            Some(line(format!("the storage has version {version}, and the catalog version {known} ({status})")))
        }
        None => {
            Some(line(format!("the storage has version {version}, and this catalog does not know it to be archived")))
        }
    })
}
