//! One owner per prefix: a marker object that tells a clone or a promoted copy that this prefix is not its own.

use super::{BlockingStore, PutMode};
use crate::error::{Error, ErrorKind, Result};
use crate::naming::KeyName;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Where the marker is.
pub const OWNER_KEY: &str = "_archive_ext/owner.json";
const FORMAT: u32 = 1;

/// Who a cluster is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerIdentity {
    /// `pg_control_system().system_identifier`; the same in every physical copy.
    pub system_identifier: String,
    /// The timeline; a promoted copy has a new one.
    pub timeline: u32,
    /// Random hexadecimal digits the cluster chose once; a logical copy of the catalog has the same, so it is only
    /// one of three.
    pub incarnation: String,
}

/// The marker in the storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerMarker {
    /// Version of the marker's format.
    pub format: u32,
    /// See [`OwnerIdentity`].
    pub system_identifier: String,
    /// See [`OwnerIdentity`].
    pub timeline: u32,
    /// See [`OwnerIdentity`].
    pub incarnation: String,
    /// When it was claimed or adopted (RFC 3339).
    pub claimed_at: String,
    /// The same in seconds since 1970, if objects were there by then: they may be somebody else's. It is here and not in the catalog,
    /// because the transaction that claims a storage may roll back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects_before: Option<i64>,
}

/// When a storage is claimed or adopted.
#[derive(Debug, Clone, Copy)]
pub struct ClaimTime<'a> {
    /// RFC 3339.
    pub text: &'a str,
    /// Seconds since 1970.
    pub unix: i64,
}

impl OwnerMarker {
    /// The marker in the storage, or `None` when nobody claimed it.
    pub fn load(store: &BlockingStore) -> Result<Option<Self>> {
        let bytes = match store.get(OWNER_KEY) {
            Ok(bytes) => bytes,
            // A missing bucket is NotFound too, and must not pass for a prefix without an owner.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                store.list(OWNER_KEY)?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let marker: Self = serde_json::from_slice(&bytes).map_err(|e| unreadable(store).source(e))?;
        if marker.format > FORMAT {
            return Err(unreadable(store).detail(format!("It has format {}, a later one.", marker.format)));
        }
        Ok(Some(marker))
    }

    /// Whether the storage is `me`'s, without claiming it: `None` when nobody's, `NotOwner` when another's.
    pub fn check(store: &BlockingStore, me: &OwnerIdentity) -> Result<Option<Self>> {
        match Self::load(store)? {
            None => Ok(None),
            Some(marker) => marker.require(store, me).map(Some),
        }
    }

    /// Makes sure that the storage is `me`'s, claiming it when it is nobody's.
    pub fn claim(store: &BlockingStore, me: &OwnerIdentity, now: ClaimTime<'_>) -> Result<Self> {
        if let Some(marker) = Self::check(store, me)? {
            return Ok(marker);
        }
        let mine = Self::of(me, now, has_objects(store)?);
        match store.put(OWNER_KEY, mine.to_bytes()?, PutMode::CreateOnly) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // Not every server honours the condition: whoever is read back has won.
        match Self::check(store, me)? {
            Some(marker) => Ok(marker),
            None => Err(Error::new(
                ErrorKind::Storage,
                format!("the owner marker of storage {} vanished", store.location()),
            )),
        }
    }

    /// Makes the storage `me`'s, whoever had it.
    pub fn adopt(store: &BlockingStore, me: &OwnerIdentity, now: ClaimTime<'_>) -> Result<Self> {
        store.put(OWNER_KEY, Self::of(me, now, true).to_bytes()?, PutMode::Overwrite)?;
        match Self::check(store, me)? {
            Some(marker) => Ok(marker),
            None => Err(Error::new(
                ErrorKind::Storage,
                format!("the owner marker of storage {} vanished", store.location()),
            )),
        }
    }

    fn of(me: &OwnerIdentity, now: ClaimTime<'_>, has_objects: bool) -> Self {
        Self {
            format: FORMAT,
            system_identifier: me.system_identifier.clone(),
            timeline: me.timeline,
            incarnation: me.incarnation.clone(),
            claimed_at: now.text.to_owned(),
            objects_before: has_objects.then_some(now.unix),
        }
    }

    fn to_bytes(&self) -> Result<Bytes> {
        let json = serde_json::to_vec_pretty(self);
        json.map(Bytes::from).map_err(|e| Error::new(ErrorKind::Internal, "could not write the owner marker").source(e))
    }

    fn require(self, store: &BlockingStore, me: &OwnerIdentity) -> Result<Self> {
        let same = self.system_identifier == me.system_identifier
            && self.incarnation == me.incarnation
            && self.timeline == me.timeline;
        if same {
            return Ok(self);
        }
        if self.system_identifier == me.system_identifier && self.timeline == me.timeline {
            return Err(self.of_another_catalog(store, me));
        }
        Err(Error::new(ErrorKind::NotOwner, format!("storage {} belongs to another cluster", store.location()))
            .detail(format!(
                "It was claimed at {} by system {} on timeline {} (incarnation {}); this is system {} on timeline {} (incarnation {}).",
                self.claimed_at, self.system_identifier, self.timeline, self.incarnation,
                me.system_identifier, me.timeline, me.incarnation,
            ))
            .hint("If the other cluster is gone for good, a superuser can take the storage over with adopt_storage; otherwise give this cluster a prefix of its own."))
    }

    /// The same database wrote it, and its catalog has forgotten that.
    fn of_another_catalog(&self, store: &BlockingStore, me: &OwnerIdentity) -> Error {
        Error::new(ErrorKind::NotOwner, format!("storage {} belongs to another catalog of this database", store.location()))
            .detail(format!(
                "It was claimed at {} as incarnation {}, and this catalog is incarnation {}: the extension was dropped and created again, or the database is a copy.",
                self.claimed_at, self.incarnation, me.incarnation,
            ))
            .hint("import_archive(storage, dry_run => false) brings back what it holds; then a superuser can take it over with adopt_storage. Otherwise give this catalog a prefix of its own.")
    }
}

/// Whether anything is there but a marker and probes.
fn has_objects(store: &BlockingStore) -> Result<bool> {
    let found = store.list_pages("", |page| {
        match page.iter().any(|object| !matches!(KeyName::of(&object.key), KeyName::Own | KeyName::Removal)) {
            true => Err(None),
            false => Ok(()),
        }
    });
    match found {
        Ok(()) => Ok(false),
        Err(None) => Ok(true),
        Err(Some(error)) => Err(error),
    }
}

fn unreadable(store: &BlockingStore) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the owner marker of storage {} cannot be read", store.location()))
        .hint(format!("Look at the object {OWNER_KEY}; a superuser can replace it with adopt_storage."))
}
