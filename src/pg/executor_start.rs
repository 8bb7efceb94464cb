//! A look at a query that was made ready and has read nothing yet: the foreign scans that it will surely run.

use std::cell::Cell;
use std::collections::HashSet;
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::{pg_guard, pg_sys};

use super::foreign::list_pointers;
use super::foreign_scan::explain_only;
use super::xact;
use crate::error::{OrRaise, Result};

/// Looks at the foreign scans of a query, of whatever wrapper, and refuses the query or lets it be.
pub type Look = fn(&[*mut pg_sys::ForeignScanState]) -> Result<()>;

static LOOK: OnceLock<Look> = OnceLock::new();
/// The hook that was there before ours: another library's C function, whose errors must unwind what is ours.
static PREVIOUS: OnceLock<pg_sys::ExecutorStart_hook_type> = OnceLock::new();

thread_local! {
    static WANTED: Cell<bool> = const { Cell::new(false) };
}

/// Puts the hook in place. From `_PG_init`.
pub fn install(look: Look) {
    if LOOK.set(look).is_err() {
        return;
    }
    // SAFETY: a process-local pointer, set while the library is loaded; the hook before ours is called on.
    unsafe {
        if PREVIOUS.set(pg_sys::ExecutorStart_hook).is_ok() {
            pg_sys::ExecutorStart_hook = Some(start);
        }
    }
}

/// Asks for a look at the query whose scans begin. From BeginForeignScan.
pub fn look_at_this() {
    WANTED.set(true);
}

#[pg_guard]
unsafe extern "C-unwind" fn start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // Queries on our catalog begin and end while a scan of the query around them begins.
    let around = WANTED.replace(false);
    // SAFETY: called by PostgreSQL as this hook, with its arguments; planstate is there once the query was started.
    unsafe {
        match PREVIOUS.get().copied().flatten() {
            Some(next) => pg_guard_ffi_boundary(|| next(query, flags)),
            None => pg_sys::standard_ExecutorStart(query, flags),
        }
        let is_wanted = WANTED.replace(around);
        let Some(look) = LOOK.get().filter(|_| is_wanted && !explain_only(flags) && !xact::is_worker()) else { return };
        let mut found = Found::default();
        find((*query).planstate, (&raw mut found).cast());
        look(&found.scans).or_raise();
    }
}

/// What a look at a plan has found.
#[derive(Default)]
struct Found {
    scans: Vec<*mut pg_sys::ForeignScanState>,
    /// Subplans that may never be run.
    lazy: HashSet<*mut pg_sys::PlanState>,
}

/// Notes the subplans of a node that a row, or the rest of an expression, decides about: all but those of WITH.
///
/// # Safety
/// `states` is a list of live SubPlanStates.
unsafe fn note_lazy(found: &mut Found, states: *mut pg_sys::List) {
    // SAFETY: by the caller's promise.
    unsafe {
        for state in list_pointers::<pg_sys::SubPlanState>(states) {
            if (*(*state).subplan).subLinkType != pg_sys::SubLinkType::CTE_SUBLINK {
                found.lazy.insert((*state).planstate);
            }
        }
    }
}

/// Whether a node reads all that is below it before its first row, however few are asked for.
///
/// # Safety
/// The node is NULL or live.
unsafe fn reads_all(node: *const pg_sys::PlanState) -> bool {
    // SAFETY: by the caller's promise.
    unsafe {
        match node.is_null() {
            true => false,
            false if (*node).type_ == pg_sys::NodeTag::T_AggState => {
                (*node.cast::<pg_sys::AggState>()).aggstrategy != pg_sys::AggStrategy::AGG_SORTED
            }
            false => (*node).type_ == pg_sys::NodeTag::T_SortState,
        }
    }
}

/// Adds the foreign scans below a node, unless rows or values that are not known yet decide whether these are run: below LIMIT, where
/// nothing sorts, and where partitions are pruned while the query runs.
#[pg_guard]
unsafe extern "C-unwind" fn find(node: *mut pg_sys::PlanState, found: *mut c_void) -> bool {
    // SAFETY: the node is NULL or live, and of the struct of its tag; `found` is that of `start`, which nobody else looks at meanwhile.
    unsafe {
        let seen = &mut *found.cast::<Found>();
        if node.is_null() || seen.lazy.contains(&node) {
            return false;
        }
        note_lazy(seen, (*node).initPlan);
        note_lazy(seen, (*node).subPlan);
        // Which subplans are valid is known from the start unless they are pruned while the query runs.
        let prunes = |state: *mut pg_sys::PartitionPruneState, valid: *mut pg_sys::Bitmapset| {
            !state.is_null() && valid.is_null()
        };
        let may_leave_out = match (*node).type_ {
            pg_sys::NodeTag::T_ForeignScanState => {
                seen.scans.push(node.cast());
                false
            }
            pg_sys::NodeTag::T_LimitState => !reads_all((*node).lefttree),
            // A condition that is the same for all rows may say that there are none.
            pg_sys::NodeTag::T_ResultState => !(*node.cast::<pg_sys::ResultState>()).resconstantqual.is_null(),
            pg_sys::NodeTag::T_AppendState => {
                let append = &*node.cast::<pg_sys::AppendState>();
                prunes(append.as_prune_state, append.as_valid_subplans)
            }
            pg_sys::NodeTag::T_MergeAppendState => {
                let append = &*node.cast::<pg_sys::MergeAppendState>();
                prunes(append.ms_prune_state, append.ms_valid_subplans)
            }
            _ => false,
        };
        !may_leave_out && pg_sys::planstate_tree_walker(node, Some(find), found)
    }
}
