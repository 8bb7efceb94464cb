//! The callbacks that PostgreSQL calls. Each wraps what it is given and calls a safe function of its phase.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

use pgrx::{pg_guard, pg_sys};

use super::exec::{self, ScanState};
use super::{analyze, explain, frozen, modify, plan, shared};
use crate::error::{OrRaise, Result};
use crate::pg::explain::Explain;
use crate::pg::foreign_scan::{self, ScanNode};
use crate::pg::parallel_scan::SharedScan;
use crate::pg::planner::BaseRel;
use crate::pg::sample::SampleRows;
use crate::pg::xact;

/// Sets the callbacks.
pub(super) fn fill(routine: &mut pg_sys::FdwRoutine) {
    routine.GetForeignRelSize = Some(get_foreign_rel_size);
    routine.GetForeignPaths = Some(get_foreign_paths);
    routine.GetForeignPlan = Some(get_foreign_plan);
    routine.BeginForeignScan = Some(begin_foreign_scan);
    routine.IterateForeignScan = Some(iterate_foreign_scan);
    routine.ReScanForeignScan = Some(rescan_foreign_scan);
    routine.EndForeignScan = Some(end_foreign_scan);
    routine.ExplainForeignScan = Some(explain_foreign_scan);
    routine.IsForeignScanParallelSafe = Some(is_foreign_scan_parallel_safe);
    routine.EstimateDSMForeignScan = Some(estimate_dsm_foreign_scan);
    routine.InitializeDSMForeignScan = Some(initialize_dsm_foreign_scan);
    routine.ReInitializeDSMForeignScan = Some(reinitialize_dsm_foreign_scan);
    routine.InitializeWorkerForeignScan = Some(initialize_worker_foreign_scan);
    routine.ShutdownForeignScan = Some(shutdown_foreign_scan);
    routine.AnalyzeForeignTable = Some(analyze_foreign_table);
    routine.IsForeignRelUpdatable = Some(is_foreign_rel_updatable);
    routine.PlanForeignModify = Some(plan_foreign_modify);
    routine.BeginForeignInsert = Some(begin_foreign_insert);
    routine.ExecForeignInsert = Some(exec_foreign_change);
    routine.ExecForeignUpdate = Some(exec_foreign_change);
    routine.ExecForeignDelete = Some(exec_foreign_change);
    routine.ExecForeignTruncate = Some(exec_foreign_truncate);
}

/// Refuses a query (55000) if those of these scans that are ours need objects which must be restored first.
pub fn refuse_frozen(scans: &[*mut pg_sys::ForeignScanState]) -> Result<()> {
    // SAFETY: the executor's live nodes; those whose callbacks are ours have a state that begin_foreign_scan kept.
    let mut nodes: Vec<_> = unsafe {
        let is_ours = |scan: &&*mut pg_sys::ForeignScanState| {
            let routine = (***scan).fdwroutine;
            let begin = if routine.is_null() { None } else { (*routine).BeginForeignScan };
            begin.is_some_and(|begin| {
                std::ptr::fn_addr_eq(begin, begin_foreign_scan as unsafe extern "C-unwind" fn(_, _))
            })
        };
        scans.iter().filter(is_ours).map(|scan| ScanNode::<ScanState>::new(*scan)).collect()
    };
    frozen::refuse(nodes.iter_mut().filter_map(exec::of))
}

#[pg_guard]
unsafe extern "C-unwind" fn get_foreign_rel_size(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    table: pg_sys::Oid,
) {
    // SAFETY: the planner passes live structs for the duration of the call.
    let mut rel = unsafe { BaseRel::new(root, rel) };
    plan::size(&mut rel, table).or_raise();
}

#[pg_guard]
unsafe extern "C-unwind" fn get_foreign_paths(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    table: pg_sys::Oid,
) {
    // SAFETY: as above.
    let mut rel = unsafe { BaseRel::new(root, rel) };
    plan::paths(&mut rel, table).or_raise();
}

#[pg_guard]
unsafe extern "C-unwind" fn get_foreign_plan(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    _table: pg_sys::Oid,
    _best_path: *mut pg_sys::ForeignPath,
    tlist: *mut pg_sys::List,
    scan_clauses: *mut pg_sys::List,
    outer_plan: *mut pg_sys::Plan,
) -> *mut pg_sys::ForeignScan {
    // SAFETY: as above; scan_clauses are RestrictInfos of this relation.
    let (rel, clauses) = unsafe {
        let rel = BaseRel::new(root, rel);
        (rel, rel.clauses(scan_clauses))
    };
    let (data, expressions) = plan::data(&rel, &clauses).or_raise();
    // SAFETY: the lists are those of this call.
    unsafe { rel.plan(tlist, scan_clauses, outer_plan, &expressions, &data) }
}

#[pg_guard]
unsafe extern "C-unwind" fn begin_foreign_scan(node: *mut pg_sys::ForeignScanState, flags: c_int) {
    // SAFETY: the executor passes a live node whose state is NULL; only this callback keeps one.
    let mut node = unsafe { ScanNode::<ScanState>::new(node) };
    exec::begin(&mut node, foreign_scan::explain_only(flags)).or_raise();
}

#[pg_guard]
unsafe extern "C-unwind" fn iterate_foreign_scan(node: *mut pg_sys::ForeignScanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the executor passes a live node whose state begin_foreign_scan kept.
    let (mut node, target) = unsafe { (ScanNode::<ScanState>::new(node), ScanNode::<ScanState>::new(node)) };
    if exec::of(&mut node).is_none() {
        exec::join(&mut node).or_raise();
    }
    match exec::of(&mut node).and_then(|scan| scan.next_row().or_raise()) {
        Some((row, place)) => target.slot(Some(row), place),
        None => target.slot(None, None),
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn rescan_foreign_scan(node: *mut pg_sys::ForeignScanState) {
    // SAFETY: as above.
    if let Some(scan) = exec::of(&mut unsafe { ScanNode::<ScanState>::new(node) }) {
        scan.rewind();
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn end_foreign_scan(node: *mut pg_sys::ForeignScanState) {
    // SAFETY: as above.
    if let Some(scan) = exec::of(&mut unsafe { ScanNode::<ScanState>::new(node) }) {
        scan.end();
    }
}

/// Where a transaction keeps one snapshot the catalog that workers see may be older than the archive.
#[pg_guard]
unsafe extern "C-unwind" fn is_foreign_scan_parallel_safe(
    _root: *mut pg_sys::PlannerInfo,
    _rel: *mut pg_sys::RelOptInfo,
    _entry: *mut pg_sys::RangeTblEntry,
) -> bool {
    !xact::keeps_one_snapshot()
}

#[pg_guard]
unsafe extern "C-unwind" fn estimate_dsm_foreign_scan(
    node: *mut pg_sys::ForeignScanState,
    _context: *mut pg_sys::ParallelContext,
) -> pg_sys::Size {
    // SAFETY: as above.
    let mut node = unsafe { ScanNode::<ScanState>::new(node) };
    exec::of(&mut node).map_or(0, |scan| SharedScan::size(&shared::text(scan).or_raise()))
}

#[pg_guard]
unsafe extern "C-unwind" fn initialize_dsm_foreign_scan(
    node: *mut pg_sys::ForeignScanState,
    _context: *mut pg_sys::ParallelContext,
    memory: *mut c_void,
) {
    // SAFETY: as above.
    let mut node = unsafe { ScanNode::<ScanState>::new(node) };
    let is_explained = node.is_instrumented();
    if let Some(scan) = exec::of(&mut node) {
        let text = shared::text(scan).or_raise();
        // SAFETY: the memory is as large as was estimated from the same text; shutdown_foreign_scan comes before it goes.
        if let Some(memory) = unsafe { SharedScan::create(memory, &text) } {
            shared::lead(scan, memory, is_explained).or_raise();
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn reinitialize_dsm_foreign_scan(
    node: *mut pg_sys::ForeignScanState,
    _context: *mut pg_sys::ParallelContext,
    memory: *mut c_void,
) {
    // SAFETY: as above; the memory is what initialize_dsm_foreign_scan filled.
    let (mut node, memory) = unsafe { (ScanNode::<ScanState>::new(node), SharedScan::attach(memory)) };
    let is_explained = node.is_instrumented();
    if let (Some(scan), Some(memory)) = (exec::of(&mut node), memory) {
        shared::lead(scan, memory, is_explained).or_raise();
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn initialize_worker_foreign_scan(
    node: *mut pg_sys::ForeignScanState,
    _contents: *mut pg_sys::shm_toc,
    memory: *mut c_void,
) {
    // SAFETY: as above; begin_foreign_scan kept nothing in a worker.
    let (mut node, memory) = unsafe { (ScanNode::<ScanState>::new(node), SharedScan::attach(memory)) };
    if let Some(memory) = memory {
        shared::wait(&mut node, memory);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn shutdown_foreign_scan(node: *mut pg_sys::ForeignScanState) {
    // SAFETY: as above.
    if let Some(scan) = exec::of(&mut unsafe { ScanNode::<ScanState>::new(node) }) {
        shared::shut_down(scan);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn explain_foreign_scan(
    node: *mut pg_sys::ForeignScanState,
    state: *mut pg_sys::ExplainState,
) {
    // SAFETY: as above; the explain state is live during the call.
    let (mut node, mut out) = unsafe { (ScanNode::<ScanState>::new(node), Explain::new(state)) };
    if let Some(scan) = exec::of(&mut node) {
        explain::explain(scan, &mut out);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn analyze_foreign_table(
    relation: pg_sys::Relation,
    acquire: *mut pg_sys::AcquireSampleRowsFunc,
    pages: *mut pg_sys::BlockNumber,
) -> bool {
    // SAFETY: ANALYZE passes an open relation and valid places for the results.
    unsafe {
        let Some(size) = analyze::pages((*relation).rd_id).or_raise() else { return false };
        *pages = size;
        *acquire = Some(acquire_sample_rows);
    }
    true
}

#[pg_guard]
unsafe extern "C-unwind" fn acquire_sample_rows(
    relation: pg_sys::Relation,
    _elevel: c_int,
    rows: *mut pg_sys::HeapTuple,
    wanted: c_int,
    total_rows: *mut f64,
    total_dead: *mut f64,
) -> c_int {
    // SAFETY: ANALYZE passes an open relation, an array of `wanted` entries and valid places for the results.
    unsafe {
        let mut sample = SampleRows::new(rows, wanted);
        *total_rows = analyze::sample((*relation).rd_id, &mut sample).or_raise() as f64;
        *total_dead = 0.0;
        sample.len() as c_int
    }
}

/// Says that rows can be inserted, so that COPY and tuple routing come to [`begin_foreign_insert`], which knows a better
/// answer than PostgreSQL's "does not allow inserts". UPDATE and DELETE are refused while planning.
#[pg_guard]
unsafe extern "C-unwind" fn is_foreign_rel_updatable(_relation: pg_sys::Relation) -> c_int {
    1 << pg_sys::CmdType::CMD_INSERT
}

#[pg_guard]
unsafe extern "C-unwind" fn plan_foreign_modify(
    root: *mut pg_sys::PlannerInfo,
    _plan: *mut pg_sys::ModifyTable,
    relation: pg_sys::Index,
    _subplan: c_int,
) -> *mut pg_sys::List {
    // SAFETY: simple_rte_array holds an entry for each relation of the query.
    let table = unsafe { (**(*root).simple_rte_array.add(relation as usize)).relid };
    modify::refusal(table).raise()
}

#[pg_guard]
unsafe extern "C-unwind" fn begin_foreign_insert(
    _state: *mut pg_sys::ModifyTableState,
    relation: *mut pg_sys::ResultRelInfo,
) {
    // SAFETY: the result relation is open.
    let table = unsafe { (*(*relation).ri_RelationDesc).rd_id };
    modify::refusal(table).raise()
}

#[pg_guard]
unsafe extern "C-unwind" fn exec_foreign_change(
    _estate: *mut pg_sys::EState,
    relation: *mut pg_sys::ResultRelInfo,
    _slot: *mut pg_sys::TupleTableSlot,
    _plan_slot: *mut pg_sys::TupleTableSlot,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the result relation is open.
    let table = unsafe { (*(*relation).ri_RelationDesc).rd_id };
    modify::refusal(table).raise()
}

#[pg_guard]
unsafe extern "C-unwind" fn exec_foreign_truncate(
    relations: *mut pg_sys::List,
    _behavior: pg_sys::DropBehavior::Type,
    _restart_sequences: bool,
) {
    // SAFETY: TRUNCATE passes a list of at least one open relation.
    let table = unsafe {
        let relation = (*(*relations).elements).ptr_value.cast::<pg_sys::RelationData>();
        (*relation).rd_id
    };
    modify::refusal(table).raise()
}
