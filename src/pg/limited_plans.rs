//! Planning under a limit: which queries it is for, leaves that are not read, and the note about them in EXPLAIN.
//!
//! A leaf that is not read is made a dummy relation at the place where PostgreSQL itself does so for a leaf that its
//! bounds rule out, so whatever comes later in planning knows how to go on. The limit is for the queries of users.
//! Referential integrity, DDL, COPY and what archive_ext does itself see every row.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString};
use std::sync::OnceLock;

use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::{pg_guard, pg_sys};

use super::event_trigger::Quiet;
use super::foreign::list_pointers;
use crate::error::{OrRaise, Result};

/// What decides about the limit.
#[derive(Debug)]
pub struct Limit {
    /// Whether the session has one. Called for every query: it must be cheap.
    pub is_set: fn() -> bool,
    /// Whether this leaf is not to be read.
    pub leaves_out: fn(pg_sys::Oid) -> Result<bool>,
    /// Refuses to change rows of this table, or lets it be.
    pub check_change: fn(pg_sys::Oid, Change) -> Result<()>,
    /// What EXPLAIN says about these leaves.
    pub note: fn(&[pg_sys::Oid]) -> Result<Option<CString>>,
}

/// A command that changes rows which it first has to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// UPDATE
    Update,
    /// DELETE
    Delete,
    /// MERGE
    Merge,
}

static LIMIT: OnceLock<Limit> = OnceLock::new();

/// The hooks that were there before ours. They are other libraries' C functions, whose errors must unwind what is ours.
#[derive(Debug)]
struct Previous {
    planner: pg_sys::planner_hook_type,
    relation_info: pg_sys::get_relation_info_hook_type,
    utility: pg_sys::ProcessUtility_hook_type,
}

static PREVIOUS: OnceLock<Previous> = OnceLock::new();

thread_local! {
    /// One entry for each planner run that is going on: the leaves left out; `None` for a run without limit.
    static RUNS: RefCell<Vec<Option<Vec<pg_sys::Oid>>>> = const { RefCell::new(Vec::new()) };
    static WHOLE: Cell<u32> = const { Cell::new(0) };
}

/// Puts the hooks in place. From `_PG_init`.
pub fn install(limit: Limit) {
    if LIMIT.set(limit).is_err() {
        return;
    }
    // SAFETY: hooks are process-local pointers, set while the library is loaded; those before ours are called on.
    unsafe {
        let previous = Previous {
            planner: pg_sys::planner_hook,
            relation_info: pg_sys::get_relation_info_hook,
            utility: pg_sys::ProcessUtility_hook,
        };
        if PREVIOUS.set(previous).is_ok() {
            pg_sys::planner_hook = Some(plan);
            pg_sys::get_relation_info_hook = Some(relation_info);
            pg_sys::ProcessUtility_hook = Some(utility);
        }
    }
}

fn is_set() -> bool {
    LIMIT.get().is_some_and(|limit| (limit.is_set)())
}

/// Forgets every cached plan, those of PL/pgSQL included.
pub fn forget_plans() {
    // SAFETY: marks the plans of this backend invalid. It allocates nothing and raises no error, so it may be called in
    // any state, from an assign hook and while an error unwinds too.
    unsafe { pg_sys::ResetPlanCache() }
}

/// While one lives, queries see every row, and what functions cache is forgotten at both ends: a plan that was made
/// under the limit must not serve without it, nor the other way round.
#[derive(Debug)]
pub struct Whole(());

impl Whole {
    /// Begins; scopes nest.
    pub fn begin() -> Self {
        WHOLE.set(WHOLE.get() + 1);
        if is_set() {
            forget_plans();
        }
        Self(())
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        WHOLE.set(WHOLE.get().saturating_sub(1));
        if is_set() {
            forget_plans();
        }
    }
}

/// A planner run, until dropped.
struct Run;

impl Run {
    fn begin(limited: bool) -> Self {
        RUNS.with_borrow_mut(|runs| runs.push(limited.then(Vec::new)));
        Self
    }

    fn left_out(&self) -> Vec<pg_sys::Oid> {
        RUNS.with_borrow_mut(|runs| runs.last_mut().and_then(Option::take)).unwrap_or_default()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        RUNS.with_borrow_mut(Vec::pop);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn plan(
    query: *mut pg_sys::Query,
    text: *const std::ffi::c_char,
    options: std::ffi::c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: called by PostgreSQL as a planner hook, with its arguments.
    unsafe {
        let limited = WHOLE.get() == 0 && is_set() && !Quiet::lasts() && !checks_integrity(text);
        if !limited && RUNS.with_borrow(Vec::is_empty) {
            return next_planner(query, text, options, parameters);
        }
        if limited {
            check_changes(query).or_raise();
        }
        let run = Run::begin(limited);
        let planned = next_planner(query, text, options, parameters);
        let left_out = run.left_out();
        drop(run);
        if let Some(limit) = LIMIT.get().filter(|_| !left_out.is_empty())
            && let Some(note) = (limit.note)(&left_out).or_raise()
        {
            add_note(&mut *planned, &note);
        }
        planned
    }
}

/// # Safety
/// The arguments of a planner hook.
unsafe fn next_planner(
    query: *mut pg_sys::Query,
    text: *const std::ffi::c_char,
    options: std::ffi::c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: by the caller's promise.
    unsafe {
        match PREVIOUS.get().and_then(|previous| previous.planner) {
            Some(planner) => pg_guard_ffi_boundary(|| planner(query, text, options, parameters)),
            None => pg_sys::standard_planner(query, text, options, parameters),
        }
    }
}

/// Whether a trigger of a foreign key makes this query. `ri_triggers.c` alone runs queries without FORCE ROW SECURITY, with
/// quoted, qualified names; queries of the functions of other triggers that such a query fires are not meant.
///
/// # Safety
/// `text` is NULL or a NUL-terminated string.
unsafe fn checks_integrity(text: *const std::ffi::c_char) -> bool {
    const BEGINNINGS: [&[u8]; 7] = [
        b"SELECT 1 FROM \"",
        b"SELECT 1 FROM ONLY \"",
        b"SELECT 1 FROM (SELECT \"",
        b"DELETE FROM \"",
        b"DELETE FROM ONLY \"",
        b"UPDATE \"",
        b"UPDATE ONLY \"",
    ];
    // SAFETY: reads a backend-local flag; the text by the caller's promise.
    unsafe {
        if !pg_sys::InNoForceRLSOperation() || text.is_null() {
            return false;
        }
        let text = CStr::from_ptr(text).to_bytes();
        BEGINNINGS.iter().any(|beginning| text.starts_with(beginning))
    }
}

/// Refuses UPDATE, DELETE and MERGE where the limit does, also in WITH, which may hold them at the top level only.
///
/// # Safety
/// `query` is a live, rewritten query.
unsafe fn check_changes(query: *const pg_sys::Query) -> Result<()> {
    // SAFETY: by the caller's promise; the range table of a query is a list of RangeTblEntries, that of WITH of
    // CommonTableExprs, whose queries have been analysed.
    unsafe {
        check_change(&*query)?;
        for with in list_pointers::<pg_sys::CommonTableExpr>((*query).cteList) {
            let inner = (*with).ctequery;
            if (*inner).type_ == pg_sys::NodeTag::T_Query {
                check_change(&*inner.cast())?;
            }
        }
    }
    Ok(())
}

/// # Safety
/// As for [`check_changes`].
unsafe fn check_change(query: &pg_sys::Query) -> Result<()> {
    let change = match query.commandType {
        pg_sys::CmdType::CMD_UPDATE => Change::Update,
        pg_sys::CmdType::CMD_DELETE => Change::Delete,
        #[cfg(not(feature = "pg14"))]
        pg_sys::CmdType::CMD_MERGE => Change::Merge,
        _ => return Ok(()),
    };
    // SAFETY: by the caller's promise; resultRelation counts from 1.
    let target = unsafe {
        let tables = list_pointers::<pg_sys::RangeTblEntry>(query.rtable);
        usize::try_from(query.resultRelation - 1).ok().and_then(|at| tables.get(at).map(|table| (**table).relid))
    };
    match (LIMIT.get(), target) {
        (Some(limit), Some(target)) if target != pg_sys::InvalidOid => (limit.check_change)(target, change),
        _ => Ok(()),
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn relation_info(
    root: *mut pg_sys::PlannerInfo,
    relation: pg_sys::Oid,
    is_parent: bool,
    rel: *mut pg_sys::RelOptInfo,
) {
    // SAFETY: called by PostgreSQL as this hook, with its arguments; the hooks before ours get them too. A relation may be
    // made a dummy here: nothing has looked at its paths yet, and the next step of the caller may do the same.
    unsafe {
        if let Some(previous) = PREVIOUS.get().and_then(|previous| previous.relation_info) {
            pg_guard_ffi_boundary(|| previous(root, relation, is_parent, rel));
        }
        let limited = RUNS.with_borrow(|runs| runs.last().is_some_and(Option::is_some));
        let Some(limit) = LIMIT.get().filter(|_| limited && !is_parent) else { return };
        if !(limit.leaves_out)(relation).or_raise() {
            return;
        }
        pg_sys::mark_dummy_rel(rel);
        RUNS.with_borrow_mut(|runs| {
            if let Some(Some(left_out)) = runs.last_mut()
                && !left_out.contains(&relation)
            {
                left_out.push(relation);
            }
        });
    }
}

/// Makes EXPLAIN print a line below the topmost node: the name of an InitPlan that nothing refers to, so that it is never
/// run. Unlike a hook of EXPLAIN it is there for prepared statements and auto_explain, on every version, in every format.
///
/// # Safety
/// The planner just made the statement, in the current memory context.
unsafe fn add_note(statement: &mut pg_sys::PlannedStmt, note: &CStr) {
    // SAFETY: by the caller's promise. Both nodes are zeroed, which means empty for each field not set here.
    unsafe {
        let mut nothing = pgrx::PgBox::<pg_sys::Result>::alloc_node(pg_sys::NodeTag::T_Result);
        nothing.plan.plan_node_id = -1;
        statement.subplans = pg_sys::lappend(statement.subplans, nothing.into_pg().cast());
        let mut subplan = pgrx::PgBox::<pg_sys::SubPlan>::alloc_node(pg_sys::NodeTag::T_SubPlan);
        subplan.subLinkType = pg_sys::SubLinkType::EXPR_SUBLINK;
        subplan.plan_id = (*statement.subplans).length;
        subplan.plan_name = pg_sys::pstrdup(note.as_ptr());
        subplan.firstColType = pg_sys::VOIDOID;
        subplan.firstColTypmod = -1;
        let top = statement.planTree;
        (*top).initPlan = pg_sys::lappend((*top).initPlan, subplan.into_pg().cast());
    }
}

#[allow(clippy::too_many_arguments)]
#[pg_guard]
unsafe extern "C-unwind" fn utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const std::ffi::c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    receiver: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: called by PostgreSQL as this hook, with its arguments.
    unsafe {
        let _whole = (!is_of_users((*statement).utilityStmt)).then(Whole::begin);
        match PREVIOUS.get().and_then(|previous| previous.utility) {
            Some(next) => {
                pg_guard_ffi_boundary(|| {
                    next(statement, text, read_only_tree, context, parameters, environment, receiver, completion);
                });
            }
            None => pg_sys::standard_ProcessUtility(
                statement,
                text,
                read_only_tree,
                context,
                parameters,
                environment,
                receiver,
                completion,
            ),
        }
    }
}

/// Whether the queries in a utility command are the user's own, for which the limit is. Those of COPY, DDL, VACUUM and
/// materialized views need every row; a command that is not known here is taken for one of these.
///
/// # Safety
/// `command` is NULL or a live utility command.
unsafe fn is_of_users(command: *const pg_sys::Node) -> bool {
    use pg_sys::NodeTag as Tag;
    // SAFETY: by the caller's promise; a node with a tag is of the tag's struct.
    unsafe {
        if command.is_null() {
            return true;
        }
        match (*command).type_ {
            Tag::T_CreateTableAsStmt => {
                (*command.cast::<pg_sys::CreateTableAsStmt>()).objtype != pg_sys::ObjectType::OBJECT_MATVIEW
            }
            Tag::T_ExplainStmt => {
                let explained = (*command.cast::<pg_sys::ExplainStmt>()).query;
                explained.is_null()
                    || (*explained).type_ != Tag::T_Query
                    || is_of_users((*explained.cast::<pg_sys::Query>()).utilityStmt)
            }
            Tag::T_ExecuteStmt
            | Tag::T_PrepareStmt
            | Tag::T_DeallocateStmt
            | Tag::T_DeclareCursorStmt
            | Tag::T_FetchStmt
            | Tag::T_ClosePortalStmt
            | Tag::T_CallStmt
            | Tag::T_DoStmt
            | Tag::T_TransactionStmt
            | Tag::T_VariableSetStmt
            | Tag::T_VariableShowStmt
            | Tag::T_DiscardStmt
            | Tag::T_NotifyStmt
            | Tag::T_ListenStmt
            | Tag::T_UnlistenStmt
            | Tag::T_LoadStmt
            | Tag::T_LockStmt
            | Tag::T_CheckPointStmt
            | Tag::T_ConstraintsSetStmt => true,
            _ => false,
        }
    }
}
