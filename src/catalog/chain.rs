//! `archive_ext.manifest_link` and `archive_ext.chain_head`: the chain of the manifests of a storage, as this database wrote it.
//!
//! A chain is that of a place: a server of another name, or made again for another place, has another.

use archive_core::chain::{Entry, Expected, Link, Removed, Sealed, Signed};
use archive_core::store::BlockingStore;
use pgrx::JsonB;

use crate::error::Result;
use crate::pg::{spi, user};

/// The links that the next one has to name: what committed transactions wrote last, and this one.
pub fn heads(storage: &str, store: &BlockingStore) -> Result<Vec<Link>> {
    let location = store.location().to_string();
    user::elevated(|| {
        spi::rows(
            "SELECT key, sha256 FROM archive_ext.chain_head WHERE storage = $1::name AND location = $2 ORDER BY key, sha256",
            &[storage.into(), location.into()],
            |row| Ok(Link { key: row.need(1)?, sha256: row.need(2)? }),
        )
    })
}

/// Adds a link that was written. Nobody is waited for: what another transaction names at this moment stays a head until one of them
/// commits, and so may be named twice.
pub fn append(storage: &str, store: &BlockingStore, key: &str, sealed: &Sealed) -> Result<()> {
    let (location, previous) = (store.location().to_string(), json(&sealed.previous)?);
    user::elevated(|| {
        spi::execute(
            "INSERT INTO archive_ext.manifest_link (storage, location, key, sha256, previous, public_key)
             VALUES ($1::name, $2, $3, $4, $5, $6)",
            &[
                storage.into(),
                location.as_str().into(),
                key.into(),
                sealed.sha256.as_str().into(),
                json(&sealed.previous)?.into(),
                sealed.public_key.as_deref().into(),
            ],
        )?;
        spi::execute(
            "DELETE FROM archive_ext.chain_head WHERE ctid IN (
               SELECT h.ctid FROM archive_ext.chain_head h
               JOIN jsonb_to_recordset($3) AS p (key text, sha256 text) ON (p.key, p.sha256) = (h.key, h.sha256)
               WHERE h.storage = $1::name AND h.location = $2 FOR UPDATE OF h SKIP LOCKED)",
            &[storage.into(), location.as_str().into(), previous.into()],
        )?;
        spi::execute(
            "INSERT INTO archive_ext.chain_head (storage, location, key, sha256) VALUES ($1::name, $2, $3, $4) ON CONFLICT DO NOTHING",
            &[storage.into(), location.into(), key.into(), sealed.sha256.as_str().into()],
        )
        .map(drop)
    })
}

/// Those of these keys that are links of the chain, with what they name: to be deleted by right.
pub fn removable(storage: &str, store: &BlockingStore, keys: &[String]) -> Result<Vec<Removed>> {
    let location = store.location().to_string();
    user::elevated(|| {
        spi::rows(
            "SELECT key, sha256, previous FROM archive_ext.manifest_link
             WHERE storage = $1::name AND location = $2 AND key = ANY ($3) AND removed_at IS NULL ORDER BY id",
            &[storage.into(), location.into(), keys.to_vec().into()],
            |row| {
                let previous = serde_json::from_value(row.need::<JsonB>(3)?.0)?;
                Ok(Removed { key: row.need(1)?, sha256: row.need(2)?, previous })
            },
        )
    })
}

/// Notes that the removal with this key says that these links are gone.
pub fn set_removed(storage: &str, store: &BlockingStore, removed: &[Removed], removal: &str) -> Result<()> {
    let location = store.location().to_string();
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.manifest_link l SET removed_at = clock_timestamp(), removed_by = $4
             FROM jsonb_to_recordset($3) AS r (key text, sha256 text)
             WHERE l.storage = $1::name AND l.location = $2 AND (l.key, l.sha256) = (r.key, r.sha256) AND l.removed_at IS NULL",
            &[storage.into(), location.into(), json(removed)?.into(), removal.into()],
        )
        .map(drop)
    })
}

/// The chain of a storage as it was written, with the public keys of its signatures.
pub fn all(storage: &str, store: &BlockingStore) -> Result<Vec<Expected>> {
    let location = store.location().to_string();
    user::elevated(|| {
        spi::rows(
            "SELECT key, sha256, removed_at IS NOT NULL, public_key FROM archive_ext.manifest_link
             WHERE storage = $1::name AND location = $2 ORDER BY id",
            &[storage.into(), location.into()],
            |row| {
                let link = Link { key: row.need(1)?, sha256: row.need(2)? };
                Ok(Expected { link, removed: row.need(3)?, public_key: row.get(4)? })
            },
        )
    })
}

/// The links of other storages that have copies in this one.
pub fn copies(storage: &str) -> Result<Vec<Link>> {
    user::elevated(|| {
        spi::rows(
            "SELECT l.key, l.sha256 FROM archive_ext.object_copy c
             JOIN archive_ext.manifest_link l ON l.storage = c.storage AND l.key = c.key AND l.removed_at IS NULL
             WHERE c.copy_storage = $1::name ORDER BY 1",
            &[storage.into()],
            |row| Ok(Link { key: row.need(1)?, sha256: row.need(2)? }),
        )
    })
}

/// Those of these keys of which the catalog knows no link.
pub fn unknown(storage: &str, store: &BlockingStore, keys: &[String]) -> Result<Vec<String>> {
    let location = store.location().to_string();
    user::elevated(|| {
        spi::rows(
            "SELECT k.key FROM unnest($3::text[]) WITH ORDINALITY AS k (key, number)
             WHERE NOT EXISTS (SELECT FROM archive_ext.manifest_link l
                               WHERE l.storage = $1::name AND l.location = $2 AND l.key = k.key) ORDER BY k.number",
            &[storage.into(), location.into(), keys.to_vec().into()],
            |row| row.need(1),
        )
    })
}

/// Notes links as they were found in a storage, and which of all are the last.
pub fn learn(storage: &str, store: &BlockingStore, found: &[Entry]) -> Result<()> {
    for entry in found {
        let key = match &entry.signed {
            Signed::By(key) => Some(key.as_str()),
            Signed::Not | Signed::Wrongly => None,
        };
        note(storage, store, (&entry.link, entry.previous.as_deref().unwrap_or_default()), key)?;
    }
    for entry in found.iter().filter(|entry| !entry.removed.is_empty()) {
        for Removed { key, sha256, previous } in &entry.removed {
            note(storage, store, (&Link { key: key.clone(), sha256: sha256.clone() }, previous), None)?;
        }
        set_removed(storage, store, &entry.removed, &entry.link.key)?;
    }
    find_heads(storage, store)
}

fn note(
    storage: &str,
    store: &BlockingStore,
    (link, previous): (&Link, &[Link]),
    public_key: Option<&str>,
) -> Result<()> {
    let location = store.location().to_string();
    user::elevated(|| {
        spi::execute(
            "INSERT INTO archive_ext.manifest_link (storage, location, key, sha256, previous, public_key)
             SELECT $1::name, $2, $3, $4, $5, $6 WHERE NOT EXISTS (
               SELECT FROM archive_ext.manifest_link l
               WHERE l.storage = $1::name AND l.location = $2 AND (l.key, l.sha256) = ($3, $4))",
            &[
                storage.into(),
                location.into(),
                link.key.as_str().into(),
                link.sha256.as_str().into(),
                json(previous)?.into(),
                public_key.into(),
            ],
        )
        .map(drop)
    })
}

/// The heads are the links that no other names.
fn find_heads(storage: &str, store: &BlockingStore) -> Result<()> {
    let location = store.location().to_string();
    user::elevated(|| {
        spi::execute(
            "DELETE FROM archive_ext.chain_head WHERE storage = $1::name AND location = $2",
            &[storage.into(), location.as_str().into()],
        )?;
        spi::execute(
            "WITH link AS (SELECT * FROM archive_ext.manifest_link WHERE storage = $1::name AND location = $2),
             named AS (SELECT DISTINCT p.key, p.sha256 FROM link, jsonb_to_recordset(link.previous) AS p (key text, sha256 text))
             INSERT INTO archive_ext.chain_head (storage, location, key, sha256)
             SELECT $1::name, $2, l.key, l.sha256 FROM link l LEFT JOIN named n ON n.key = l.key AND n.sha256 = l.sha256
             WHERE n.key IS NULL AND l.removed_at IS NULL ON CONFLICT DO NOTHING",
            &[storage.into(), location.into()],
        )
        .map(drop)
    })
}

/// The objects of a storage were copied to the place where it is now.
pub fn moved(storage: &str, store: &BlockingStore) -> Result<()> {
    let location = store.location().to_string();
    user::elevated(|| {
        ["manifest_link", "chain_head"].iter().try_for_each(|table| {
            let sql =
                format!("UPDATE archive_ext.{table} SET location = $2 WHERE storage = $1::name AND location <> $2");
            spi::execute(&sql, &[storage.into(), location.as_str().into()]).map(drop)
        })
    })
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<JsonB> {
    Ok(JsonB(serde_json::to_value(value)?))
}
