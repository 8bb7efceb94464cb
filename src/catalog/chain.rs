//! `archive_ext.manifest_link` and `archive_ext.chain_head`: the chain of the manifests of a storage, as this database wrote it.
//!
//! A chain is that of a place: a server of another name, or made again for another place, has another.

use std::collections::HashSet;

use archive_core::chain::{Expected, Link, Removed, Sealed};
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

/// Those of these keys that are links on record, with what they name, and of which no removal was written yet.
pub fn removable(storage: &str, store: &BlockingStore, keys: &[String]) -> Result<Vec<Removed>> {
    let location = store.location().to_string();
    user::elevated(|| {
        spi::rows(
            "SELECT key, sha256, previous FROM archive_ext.manifest_link
             WHERE storage = $1::name AND location = $2 AND key = ANY ($3) AND removed_by IS NULL ORDER BY id",
            &[storage.into(), location.into(), keys.to_vec().into()],
            |row| {
                let previous = serde_json::from_value(row.need::<JsonB>(3)?.0)?;
                Ok(Removed { key: row.need(1)?, sha256: row.need(2)?, previous })
            },
        )
    })
}

/// Notes that the removal with this key says that these links go.
pub fn set_announced(storage: &str, store: &BlockingStore, removed: &[Removed], removal: &str) -> Result<()> {
    let location = store.location().to_string();
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.manifest_link l SET removed_by = $4
             FROM jsonb_to_recordset($3) AS r (key text, sha256 text)
             WHERE l.storage = $1::name AND l.location = $2 AND (l.key, l.sha256) = (r.key, r.sha256) AND l.removed_by IS NULL",
            &[storage.into(), location.into(), json(removed)?.into(), removal.into()],
        )
        .map(drop)
    })
}

/// Notes that what was announced of these keys is gone.
pub fn set_removed(storage: &str, store: &BlockingStore, keys: &[String]) -> Result<()> {
    let location = store.location().to_string();
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.manifest_link SET removed_at = clock_timestamp()
             WHERE storage = $1::name AND location = $2 AND key = ANY ($3) AND removed_by IS NOT NULL AND removed_at IS NULL",
            &[storage.into(), location.into(), keys.to_vec().into()],
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

/// The links of other storages that have copies in this one: of the place where those are now.
pub fn copies(storage: &str) -> Result<Vec<Expected>> {
    user::elevated(|| {
        spi::rows(
            "SELECT l.key, l.sha256, l.public_key FROM archive_ext.object_copy c
             JOIN archive_ext.storage_claim s ON s.storage = c.storage
             JOIN archive_ext.manifest_link l
               ON l.storage = c.storage AND l.location = s.location AND l.key = c.key AND l.removed_at IS NULL
             WHERE c.copy_storage = $1::name ORDER BY 1",
            &[storage.into()],
            |row| {
                let link = Link { key: row.need(1)?, sha256: row.need(2)? };
                Ok(Expected { link, removed: false, public_key: row.get(3)? })
            },
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

/// Notes a link as it was found in a storage, or as one names it that was.
pub fn note(
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

/// Which of these links are on record.
pub fn recorded(storage: &str, store: &BlockingStore, links: &[Link]) -> Result<HashSet<Link>> {
    let location = store.location().to_string();
    let found = user::elevated(|| {
        spi::rows(
            "SELECT DISTINCT l.key, l.sha256 FROM archive_ext.manifest_link l
             JOIN jsonb_to_recordset($3) AS r (key text, sha256 text) ON (r.key, r.sha256) = (l.key, l.sha256)
             WHERE l.storage = $1::name AND l.location = $2",
            &[storage.into(), location.into(), json(links)?.into()],
            |row| Ok(Link { key: row.need(1)?, sha256: row.need(2)? }),
        )
    })?;
    Ok(found.into_iter().collect())
}

/// Notes that these links, which others name, were not there when the chain was taken over.
pub fn note_absent(storage: &str, store: &BlockingStore, links: &[Link]) -> Result<()> {
    links.iter().try_for_each(|link| note(storage, store, (link, &[]), None))?;
    let absent = |link: &Link| Removed { key: link.key.clone(), sha256: link.sha256.clone(), previous: Vec::new() };
    let absent: Vec<_> = links.iter().map(absent).collect();
    set_announced(storage, store, &absent, "not there when the chain was taken over")?;
    let location = store.location().to_string();
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.manifest_link l SET removed_at = clock_timestamp()
             FROM jsonb_to_recordset($3) AS r (key text, sha256 text)
             WHERE l.storage = $1::name AND l.location = $2 AND (l.key, l.sha256) = (r.key, r.sha256) AND l.removed_at IS NULL",
            &[storage.into(), location.into(), json(links)?.into()],
        )
        .map(drop)
    })
}

/// Finds the heads anew: the links that no other names. Those that another transaction names at this moment are left to it.
pub fn find_heads(storage: &str, store: &BlockingStore) -> Result<()> {
    let location = store.location().to_string();
    user::elevated(|| {
        spi::execute(
            "DELETE FROM archive_ext.chain_head WHERE ctid IN (
               SELECT ctid FROM archive_ext.chain_head WHERE storage = $1::name AND location = $2 FOR UPDATE SKIP LOCKED)",
            &[storage.into(), location.as_str().into()],
        )?;
        spi::execute(
            "WITH link AS (SELECT * FROM archive_ext.manifest_link WHERE storage = $1::name AND location = $2),
             named AS (SELECT DISTINCT p.key, p.sha256 FROM link, jsonb_to_recordset(link.previous) AS p (key text, sha256 text))
             INSERT INTO archive_ext.chain_head (storage, location, key, sha256)
             SELECT $1::name, $2, l.key, l.sha256 FROM link l LEFT JOIN named n ON n.key = l.key AND n.sha256 = l.sha256
             WHERE n.key IS NULL AND l.removed_by IS NULL ON CONFLICT DO NOTHING",
            &[storage.into(), location.into()],
        )
        .map(drop)
    })
}

/// The objects of a storage were copied from one place to the one where it is now, and the chain goes on there. What the record has
/// of both places is taken from where it was written.
pub fn moved(storage: &str, from: &str, store: &BlockingStore) -> Result<()> {
    let location = store.location().to_string();
    if from == location {
        return Ok(());
    }
    user::elevated(|| {
        for table in ["manifest_link", "chain_head"] {
            let forget = format!(
                "DELETE FROM archive_ext.{table} n USING archive_ext.{table} o
                 WHERE (n.storage, n.location) = ($1::name, $3) AND (o.storage, o.location) = ($1::name, $2)
                   AND (n.key, n.sha256) = (o.key, o.sha256)"
            );
            spi::execute(&forget, &[storage.into(), from.into(), location.as_str().into()])?;
            let take =
                format!("UPDATE archive_ext.{table} SET location = $3 WHERE (storage, location) = ($1::name, $2)");
            spi::execute(&take, &[storage.into(), from.into(), location.as_str().into()])?;
        }
        Ok(())
    })
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<JsonB> {
    Ok(JsonB(serde_json::to_value(value)?))
}
