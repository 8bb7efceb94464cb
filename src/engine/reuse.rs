//! What of a partition's last version can be kept when it is archived again after it came back: all of it, or the objects
//! whose rows nobody changed. Rows are told by their digests; where they are is only a hint.

use archive_core::codec::{Digest, sha256_of};
use archive_core::manifest::{Manifest, ManifestObject};

use super::manifest;
use super::plan::{Plan, Verify};
use super::progress::{Phase, Progress};
use super::verify;
use crate::catalog;
use crate::error::{Result, SqlState};
use crate::export::{self, ExportSource, Places};
use crate::partition::{ddl, discover};
use crate::pg::scan::TableScan;
use crate::pg::tuple_id::TupleId;

/// What can be kept.
#[derive(Debug)]
pub enum Reuse {
    /// Every object: the rows are those of the last version.
    Everything {
        /// Key of the manifest that describes them.
        key: String,
        /// The manifest.
        manifest: Box<Manifest>,
    },
    /// Some objects, with what lies between them.
    Objects(Vec<Segment>),
    /// No object.
    Nothing,
}

/// A stretch of the heap.
#[derive(Debug)]
pub enum Segment {
    /// Its rows are those of an object of the last version.
    Kept {
        /// The object.
        object: Box<ManifestObject>,
        /// Where its rows begin.
        first: TupleId,
    },
    /// Its rows are to be written.
    Changed(Places),
}

/// Compares the frozen partition with its last version, in one pass over its rows.
pub fn find(plan: &Plan, source: &ExportSource, progress: &mut Progress) -> Result<Reuse> {
    let Some((key, manifest)) = last_version(plan, source)? else { return Ok(Reuse::Nothing) };
    let places = match places(plan, source, &manifest)? {
        // `deep` compares row by row in the order of the heap, which an object need not have any more.
        Some(places) if plan.verify == Verify::Content => places,
        _ => vec![export::EVERYWHERE],
    };
    let digests = export::digests(source, &places, &mut |rows, bytes| progress.tick(rows, bytes))?;
    let by_object = places.len() == manifest.objects.len();
    let same_rows = is_whole(&digests, &manifest) && manifest.objects.iter().all(|object| is_intact(plan, object));
    if same_rows && (plan.verify == Verify::Content || in_order(plan, source, &key, &manifest, progress)?) {
        return Ok(Reuse::Everything { key, manifest: Box::new(manifest) });
    }
    if !by_object || plan.verify == Verify::Deep {
        return Ok(Reuse::Nothing);
    }
    Ok(segments(plan, manifest.objects, &places, &digests))
}

/// Whether the objects have the rows in the order of the heap, which is what `deep` will compare. Digests have no order: an
/// UPDATE that was taken back leaves the same rows in another one.
fn in_order(
    plan: &Plan,
    source: &ExportSource,
    key: &str,
    manifest: &Manifest,
    progress: &mut Progress,
) -> Result<bool> {
    match verify::read_back(source, &plan.store, key, manifest, Verify::Deep, progress) {
        Ok(()) => Ok(true),
        Err(error) if error.sqlstate() == SqlState::ERRCODE_DATA_CORRUPTED => {
            progress.phase(Phase::Exporting);
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The version in this storage that the catalog recorded, if the partition still has its columns and bounds, and the table its name:
/// keys begin with that.
fn last_version(plan: &Plan, source: &ExportSource) -> Result<Option<(String, Manifest)>> {
    let known = catalog::partition::find(plan.root, &plan.leaf.schema, &plan.leaf.name)?;
    let Some(known) = known.filter(|known| known.storage.as_deref() == Some(&plan.storage)) else { return Ok(None) };
    let Some(key) = known.manifest_key else { return Ok(None) };
    let Ok(manifest) = manifest::load(&plan.store, &key) else { return Ok(None) };
    let same = catalog::partition::recorded_as(known.id, &manifest)?
        && (&manifest.source.schema, &manifest.source.table) == (&plan.root_name.0, &plan.root_name.1)
        && manifest.source.bounds == plan.leaf.bounds
        && manifest.schema == source.schema;
    Ok(same.then_some((key, manifest)))
}

/// Where the rows of each object should be: from its first row up to the next object's.
fn places(plan: &Plan, source: &ExportSource, manifest: &Manifest) -> Result<Option<Vec<Places>>> {
    let Some(leaf) = discover::leaf(plan.leaf.oid)?.filter(|_| TableScan::has_ranges(&source.relation)) else {
        return Ok(None);
    };
    let mut begins = Vec::with_capacity(manifest.objects.len());
    for object in &manifest.objects {
        match catalog::object::position(&plan.storage, &object.key, leaf.relfilenode)? {
            Some(first) if begins.last().is_none_or(|last| *last < first) => begins.push(first),
            _ => return Ok(None),
        }
    }
    if let Some(first) = begins.first_mut() {
        *first = export::EVERYWHERE.0;
    }
    let ends = begins.iter().skip(1).copied().chain([export::EVERYWHERE.1]);
    Ok((!begins.is_empty()).then(|| begins.iter().copied().zip(ends).collect()))
}

fn is_whole(digests: &[Digest], manifest: &Manifest) -> bool {
    let mut whole: Option<Digest> = None;
    for digest in digests {
        match &mut whole {
            Some(whole) => whole.merge(digest),
            None => whole = Some(digest.clone()),
        }
    }
    whole.is_some_and(|whole| whole == manifest.digest)
}

/// Whether an object still has the bytes that were archived: a lost or damaged one is replaced while the rows are here.
fn is_intact(plan: &Plan, object: &ManifestObject) -> bool {
    // What is frozen could not be compared with a local copy that is to go later.
    if plan.keep_seconds > 0 && catalog::tier::is_in_frozen_class(&plan.storage, &object.key).unwrap_or(true) {
        return false;
    }
    let mut reader = plan.store.reader(&object.key, object.bytes);
    sha256_of(&mut reader).is_ok_and(|sha256| sha256 == object.sha256)
}

/// The objects that can be kept, and between them the stretches to be written, those without rows left out.
fn segments(plan: &Plan, objects: Vec<ManifestObject>, places: &[Places], digests: &[Digest]) -> Reuse {
    let mut segments: Vec<Segment> = Vec::new();
    let mut kept = false;
    for ((object, places), digest) in objects.into_iter().zip(places).zip(digests) {
        if *digest == object.digest && is_intact(plan, &object) {
            kept = true;
            segments.push(Segment::Kept { object: Box::new(object), first: places.0 });
        } else if digest.rows > 0 {
            match segments.last_mut() {
                Some(Segment::Changed((_, end))) => *end = places.1,
                _ => segments.push(Segment::Changed(*places)),
            }
        }
    }
    if kept { Reuse::Objects(segments) } else { Reuse::Nothing }
}

/// The same objects under a manifest of their own where the partition's indexes, grants and the like changed meanwhile. That looks
/// at the table above, which others lock before its partitions: so the caller holds no lock on the partition.
pub fn with_current_ddl(plan: &Plan, key: String, manifest: Manifest) -> Result<(String, Manifest)> {
    let ddl = ddl::record(&plan.leaf, plan.root)?;
    if ddl == manifest.ddl && plan.family == manifest.family {
        return Ok((key, manifest));
    }
    let version = manifest::next_version_of(plan)?;
    let key = manifest::key(plan, version);
    let mut manifest = Manifest { version, created_at: catalog::storage::now_text()?, ddl, ..manifest };
    manifest::describe_surroundings(manifest::Subject::of(plan), &mut manifest)?;
    manifest::put(&plan.storage, &plan.store, &key, &mut manifest)?;
    Ok((key, manifest))
}
