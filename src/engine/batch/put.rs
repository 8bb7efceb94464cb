//! Rows into objects: packed, written, read back and compared; in the catalog when they have left the table.

use archive_core::codec::{Digest, KeyFilter};
use archive_core::lifecycle::Granularity;
use archive_core::manifest::ManifestObject;
use archive_core::naming::{self, BatchName, HiveDate};
use pgrx::pg_sys;

use super::columns;
use super::pace::Laps;
use super::plan::Plan;
use super::row_set;
use super::select::Chosen;
use crate::catalog;
use crate::catalog::batch_job::BatchJob;
use crate::catalog::row_set::RowSet;
use crate::engine::plan::job_hex;
use crate::engine::progress::{Phase, Progress};
use crate::engine::{copies, manifest, storage, verify};
use crate::error::{Error, Result, SqlState};
use crate::export::{self, ExportSource, Objects, Packed};
use crate::pg::relation::{LockMode, Relation};
use crate::pg::tuple_id::TupleId;

/// Verified objects of one table's rows.
pub struct Stored {
    set: RowSet,
    batches: Vec<Verified>,
}

/// The objects of one manifest.
struct Verified {
    objects: Vec<ManifestObject>,
    filters: Vec<Option<KeyFilter>>,
    digest: Digest,
    manifest: String,
    rows: usize,
}

impl Stored {
    /// Writes `rows` in their order and reads them back: as many as fit into the byte limit, or, if they must be `whole`, all of them.
    ///
    /// Errors: XX001 when what was read back differs, and those of the storage.
    pub fn of(
        plan: &Plan,
        job: &mut BatchJob,
        rows: &[Chosen],
        whole: bool,
        progress: &mut Progress,
        laps: &mut Laps,
    ) -> Result<Self> {
        catalog::storage::claim(&plan.storage, &plan.store)?;
        catalog::writers::hold_family(&naming::job_family(&job_hex(job.id)))?;
        let archive = row_set::ensure_archive(plan)?;
        let source = ExportSource::open(plan.table.oid, plan.root, LockMode::RowExclusive)?;
        progress.phase(Phase::Exporting);
        let mut set = row_set::ensure(plan, &source, archive)?;
        let filter_fields = columns::filter_fields(&plan.table, &source)?;
        let copies = copies::wanted(plan.root)?;
        let (mut batches, mut rest) = (Vec::new(), rows);
        while !rest.is_empty() {
            let packed = pack(plan, job, &set, &source, rest, filter_fields.clone(), progress)?;
            job.seconds.pack += laps.lap();
            let verified = write(plan, job, &mut set, packed)?;
            job.seconds.write += laps.lap();
            verify::objects(&source, &plan.store, &source.schema, verified.objects.iter(), progress)?;
            job.seconds.verify += laps.lap();
            if let Some(copies) = &copies {
                let objects = verified.objects.iter().map(copies::Item::of);
                let items: Vec<_> = objects.chain([copies::Item::manifest(&verified.manifest)]).collect();
                copies::make(&plan.store, &plan.storage, copies, plan.table.owner, &items)?;
            }
            failpoint!("batch_read_back");
            rest = rest.get(verified.rows..).unwrap_or_default();
            set.last_batch = Some(verified.manifest.clone());
            batches.push(verified);
            if !whole {
                break;
            }
        }
        Ok(Self { set, batches })
    }

    /// How many rows the objects hold.
    pub fn rows(&self) -> usize {
        self.batches.iter().map(|batch| batch.rows).sum()
    }

    /// The objects, in the order of the rows.
    pub fn objects(&self) -> Vec<ManifestObject> {
        self.batches.iter().flat_map(|batch| batch.objects.iter().cloned()).collect()
    }

    /// Adds the objects to the archive: with the commit its rows are there. Errors: 55006 when the storage was moved meanwhile.
    pub fn append(mut self, plan: &Plan) -> Result<()> {
        catalog::place::still_at(&plan.storage, &plan.store.location().to_string())?;
        for Verified { objects, filters, digest, manifest, .. } in self.batches {
            catalog::row_set::append(&self.set, &objects, &filters, &digest, &manifest)?;
            self.set.digest.merge(&digest);
        }
        Ok(())
    }
}

fn pack(
    plan: &Plan,
    job: &BatchJob,
    set: &RowSet,
    source: &ExportSource,
    chosen: &[Chosen],
    filter_fields: Vec<i32>,
    progress: &mut Progress,
) -> Result<Packed> {
    let mut oids: Vec<pg_sys::Oid> = Vec::new();
    let mut rows: Vec<(usize, TupleId)> = Vec::with_capacity(chosen.len());
    for row in chosen {
        let at = oids.iter().position(|oid| *oid == row.relation).unwrap_or_else(|| {
            oids.push(row.relation);
            oids.len() - 1
        });
        rows.push((at, row.place));
    }
    let relations = oids.into_iter().map(|oid| {
        Relation::open(oid, LockMode::RowExclusive)
            .ok_or_else(|| Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, "the table was dropped meanwhile"))
    });
    let relations = relations.collect::<Result<Vec<_>>>()?;
    let date = chosen.iter().filter_map(|row| row.at).min().map(|at| HiveDate::new(at, Granularity::Month));
    let (number, hex) = (job.batches + 1, job_hex(job.id));
    let (schema, table) = set.table_name(&plan.name);
    let key =
        |sha256: &str| naming::batch_key(schema, table, date, BatchName { job: &hex, number, sha256 }, plan.format);
    let mut tick = |rows: u64, bytes: u64| progress.tick(rows, bytes);
    let objects = Objects { filter_fields, format: plan.format };
    export::pack(source, &relations, &rows, objects, plan.request.batch_bytes, key, &mut tick)
}

/// Writes the objects, then their manifest, which is read back at once.
fn write(plan: &Plan, job: &BatchJob, set: &mut RowSet, packed: Packed) -> Result<Verified> {
    let Packed { objects: packed, filters, digest, rows } = packed;
    let mut objects = Vec::with_capacity(packed.len());
    for (object, bytes) in packed {
        failpoint!("batch_packed");
        storage::put_once(&plan.store, &object.key, bytes)?;
        failpoint!("batch_put");
        objects.push(object);
    }
    let step = (&*job_hex(job.id), job.batches + 1);
    let hint = "Nothing was removed locally. Check the storage, then archive the rows again.";
    manifest::settle(&plan.store, set, &plan.name, step, hint)?;
    let manifest = manifest::next_batch(set, step, digest.clone(), objects.clone())?;
    let key = manifest::put_batch(&plan.store, set, &plan.name, manifest, hint)?;
    Ok(Verified { objects, filters, digest, manifest: key, rows })
}
