//! The planner's view of a foreign table.

use pgrx::{PgMemoryContexts, pg_sys};

use super::clause::{self, Clause, Expression};
use super::foreign::list_pointers;

/// Attribute numbers of a Bitmapset are shifted by this, so that system columns fit.
const FIRST_LOW_INVALID: i32 = pg_sys::FirstLowInvalidHeapAttributeNumber;

/// A base relation being planned.
#[derive(Debug, Clone, Copy)]
pub struct BaseRel {
    pub(super) root: *mut pg_sys::PlannerInfo,
    pub(super) rel: *mut pg_sys::RelOptInfo,
}

/// The outer relations that give values to a parameterised path, and the rows expected for each.
#[derive(Debug, Clone, Copy)]
pub struct Parameterisation {
    info: *mut pg_sys::ParamPathInfo,
}

impl Parameterisation {
    /// Rows expected for one set of values.
    pub fn rows(&self) -> f64 {
        // SAFETY: made by the planner, lives as long as the planner run.
        unsafe { (*self.info).ppi_rows }
    }
}

/// The columns a scan must read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Needed {
    /// All of them, for a whole-row reference.
    All,
    /// These attribute numbers, ascending.
    Some(Vec<i16>),
}

/// What a path costs.
#[derive(Debug, Clone, Copy)]
pub struct PathCost {
    /// Rows it returns.
    pub rows: f64,
    /// Before the first row.
    pub startup: f64,
    /// To the last row.
    pub total: f64,
}

impl BaseRel {
    /// # Safety
    /// Both come from a planner callback that is running.
    pub unsafe fn new(root: *mut pg_sys::PlannerInfo, rel: *mut pg_sys::RelOptInfo) -> Self {
        Self { root, rel }
    }

    fn rel(&self) -> &pg_sys::RelOptInfo {
        // SAFETY: live during the planner callback.
        unsafe { &*self.rel }
    }

    fn clause(&self, node: *mut pg_sys::Node) -> Clause {
        Clause { root: self.root, relid: self.rel().relid, node }
    }

    /// The clauses of a list of RestrictInfos.
    ///
    /// # Safety
    /// `list` is a live list of RestrictInfos of this relation.
    pub unsafe fn clauses(&self, list: *mut pg_sys::List) -> Vec<Clause> {
        // SAFETY: by the caller's promise.
        unsafe {
            let infos = list_pointers::<pg_sys::RestrictInfo>(list).into_iter();
            infos.filter(|info| !(**info).pseudoconstant).map(|info| self.clause((*info).clause.cast())).collect()
        }
    }

    /// The clauses that restrict this relation alone.
    pub fn restrictions(&self) -> Vec<Clause> {
        // SAFETY: baserestrictinfo is a list of RestrictInfos.
        unsafe { self.clauses(self.rel().baserestrictinfo) }
    }

    /// The join clauses that a parameterised scan of this relation tests.
    pub fn clauses_with(&self, with: &Parameterisation) -> Vec<Clause> {
        // SAFETY: ppi_clauses is a list of RestrictInfos.
        unsafe { self.clauses((*with.info).ppi_clauses) }
    }

    /// Sets size and width, and the row estimate from the selectivity of the restrictions.
    pub fn set_size(&mut self, rows: f64, pages: u32) {
        // SAFETY: the callback may set tuples and pages of its relation.
        unsafe {
            (*self.rel).tuples = rows;
            (*self.rel).pages = pages;
            pg_sys::set_baserel_size_estimates(self.root, self.rel);
        }
    }

    /// Estimated rows.
    pub fn rows(&self) -> f64 {
        self.rel().rows
    }

    /// Lowers the row estimate to `most`.
    pub fn limit_rows(&mut self, most: f64) {
        // SAFETY: the callback may set the rows of its relation.
        unsafe { (*self.rel).rows = pg_sys::clamp_row_est(self.rel().rows.min(most)) }
    }

    /// Cost of the restrictions: once, and for each row.
    pub fn restriction_cost(&self) -> (f64, f64) {
        let cost = self.rel().baserestrictcost;
        (cost.startup, cost.per_tuple)
    }

    /// Keeps what one callback found out for the next ones of this planner run.
    pub fn keep<T>(&mut self, value: T) {
        // SAFETY: the current context is the planner's, which outlives the relation; fdw_private is ours.
        unsafe {
            (*self.rel).fdw_private = PgMemoryContexts::CurrentMemoryContext.leak_and_drop_on_delete(value).cast()
        }
    }

    /// What [`Self::keep`] kept.
    ///
    /// # Safety
    /// It was of type `T`.
    pub unsafe fn kept<T>(&self) -> Option<&T> {
        // SAFETY: by the caller's promise.
        unsafe { self.rel().fdw_private.cast::<T>().as_ref() }
    }

    /// The columns that the target list and `clauses` use.
    pub fn needed(&self, clauses: &[Clause]) -> Needed {
        let (mut whole, mut columns) = (false, Vec::new());
        for attribute in self.used(clauses) {
            whole |= attribute == 0;
            columns.extend((attribute > 0).then_some(attribute));
        }
        if whole { Needed::All } else { Needed::Some(columns) }
    }

    /// Whether the target list or `clauses` use `ctid`.
    pub fn needs_places(&self, clauses: &[Clause]) -> bool {
        self.used(clauses).any(|attribute| i32::from(attribute) == pg_sys::SelfItemPointerAttributeNumber)
    }

    /// The attribute numbers that the target list and `clauses` use, ascending; 0 for the whole row.
    fn used(&self, clauses: &[Clause]) -> impl Iterator<Item = i16> {
        let mut set = std::ptr::null_mut();
        // SAFETY: live expression trees; pull_varattnos adds to the set.
        unsafe {
            pg_sys::pull_varattnos((*self.rel().reltarget).exprs.cast(), self.rel().relid, &mut set);
            for clause in clauses {
                pg_sys::pull_varattnos(clause.node, self.rel().relid, &mut set);
            }
        }
        members(set).map(|member| (member + FIRST_LOW_INVALID) as i16)
    }

    /// Adds a path that scans the relation, with values from outer relations where given. The leader's process takes it, no worker.
    pub fn add_path(&mut self, cost: PathCost, with: Option<Parameterisation>) {
        // SAFETY: the relids outlive the planner run; a NULL target means the relation's own.
        unsafe {
            let outer = with.map_or(self.rel().lateral_relids, |with| (*with.info).ppi_req_outer);
            let path = foreignscan_path(self.root, self.rel, cost, outer);
            (*path).path.parallel_safe = false;
            pg_sys::add_path(self.rel, path.cast());
        }
    }

    /// How many workers a scan of so many pages is worth; 0 where the query allows none, or the scan needs values from outer relations.
    pub fn parallel_workers(&self, pages: f64) -> i32 {
        if !self.rel().consider_parallel || !self.rel().lateral_relids.is_null() {
            return 0;
        }
        // SAFETY: a live relation; reads settings on the main thread.
        unsafe { pg_sys::compute_parallel_worker(self.rel, pages, -1.0, pg_sys::max_parallel_workers_per_gather) }
    }

    /// Adds a path that the leader and so many workers share. `cost` is that of one process that does it all.
    pub fn add_partial_path(&mut self, cost: PathCost, workers: i32) {
        let processes = parallel_divisor(workers);
        let total = cost.startup + (cost.total - cost.startup) / processes;
        // SAFETY: as in `add_path`.
        unsafe {
            let rows = pg_sys::clamp_row_est(cost.rows / processes);
            let outer = self.rel().lateral_relids;
            let path = foreignscan_path(self.root, self.rel, PathCost { rows, total, ..cost }, outer);
            (*path).path.parallel_aware = true;
            (*path).path.parallel_safe = true;
            (*path).path.parallel_workers = workers;
            pg_sys::add_partial_path(self.rel, path.cast());
        }
    }

    /// The parameterised paths worth having: one for each set of outer relations whose join clauses are `usable`.
    pub fn parameterisations(&self, usable: &dyn Fn(&Clause) -> bool) -> Vec<Parameterisation> {
        let mut found: Vec<Parameterisation> = Vec::new();
        for info in self.join_clauses() {
            // SAFETY: live RestrictInfos of the planner.
            let outer = unsafe {
                if !usable(&self.clause((*info).clause.cast())) {
                    continue;
                }
                let outer = pg_sys::bms_union((*info).clause_relids, self.rel().lateral_relids);
                pg_sys::bms_del_member(outer, self.rel().relid as i32)
            };
            if members(outer).next().is_none() {
                continue;
            }
            // SAFETY: a non-empty set of other relations.
            let info = unsafe { pg_sys::get_baserel_parampathinfo(self.root, self.rel, outer) };
            if !found.iter().any(|known| known.info == info) {
                found.push(Parameterisation { info });
            }
        }
        found
    }

    /// Join clauses that can be tested while scanning this relation, from WHERE and from equivalence classes.
    fn join_clauses(&self) -> Vec<*mut pg_sys::RestrictInfo> {
        // SAFETY: joininfo is a list of RestrictInfos.
        let mut clauses = unsafe { list_pointers::<pg_sys::RestrictInfo>(self.rel().joininfo) };
        if self.rel().has_eclass_joins {
            for attribute in 1..=self.rel().max_attr {
                clauses.extend(self.equivalence_clauses(attribute));
            }
        }
        // SAFETY: both are of this planner run.
        clauses.retain(|info| unsafe { pg_sys::join_clause_is_movable_to(*info, self.rel) });
        clauses
    }

    fn equivalence_clauses(&self, mut attribute: i16) -> Vec<*mut pg_sys::RestrictInfo> {
        // SAFETY: the callback gets a pointer to `attribute`, which lives during the call.
        unsafe {
            let list = pg_sys::generate_implied_equalities_for_column(
                self.root,
                self.rel,
                Some(member_is_column),
                (&raw mut attribute).cast(),
                self.rel().lateral_referencers,
            );
            list_pointers(list)
        }
    }

    /// The scan's plan node. `data` is a text that survives copying and sending the plan; `expressions` are evaluated
    /// by the executor.
    ///
    /// # Safety
    /// The lists come from the GetForeignPlan callback that is running.
    pub unsafe fn plan(
        &self,
        tlist: *mut pg_sys::List,
        scan_clauses: *mut pg_sys::List,
        outer_plan: *mut pg_sys::Plan,
        expressions: &[Expression],
        data: &std::ffi::CStr,
    ) -> *mut pg_sys::ForeignScan {
        // SAFETY: by the caller's promise; pstrdup copies the text into the planner's memory.
        unsafe {
            let quals = pg_sys::extract_actual_clauses(scan_clauses, false);
            let values = expressions
                .iter()
                .fold(std::ptr::null_mut(), |list, expression| pg_sys::lappend(list, expression.node.cast()));
            let text = pg_sys::makeString(pg_sys::pstrdup(data.as_ptr()));
            let private = pg_sys::lappend(std::ptr::null_mut(), text.cast());
            let none = std::ptr::null_mut();
            pg_sys::make_foreignscan(tlist, quals, self.rel().relid, values, private, none, none, outer_plan)
        }
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn member_is_column(
    _root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    _class: *mut pg_sys::EquivalenceClass,
    member: *mut pg_sys::EquivalenceMember,
    attribute: *mut std::ffi::c_void,
) -> bool {
    // SAFETY: the planner passes live nodes; `attribute` is the pointer given in equivalence_clauses.
    unsafe {
        let var = clause::plain_var((*member).em_expr.cast());
        var.is_some_and(|var| {
            clause::varno(var) == (*rel).relid && var.varlevelsup == 0 && var.varattno == *attribute.cast::<i16>()
        })
    }
}

/// By how much workers divide a scan: `get_parallel_divisor` of PostgreSQL's `costsize.c`. A leader that has many workers to listen to
/// does little itself.
fn parallel_divisor(workers: i32) -> f64 {
    // SAFETY: reads a setting on the main thread.
    let takes_part = unsafe { pg_sys::parallel_leader_participation };
    let leader = if takes_part { (1.0 - 0.3 * f64::from(workers)).max(0.0) } else { 0.0 };
    f64::from(workers) + leader
}

fn members(set: *const pg_sys::Bitmapset) -> impl Iterator<Item = i32> {
    // SAFETY: bms_next_member takes any set, NULL being the empty one, and any previous member or -1.
    let next = move |previous: &i32| Some(unsafe { pg_sys::bms_next_member(set, *previous) }).filter(|next| *next >= 0);
    std::iter::successors(next(&-1), next)
}

/// `create_foreignscan_path`, which gained arguments in PostgreSQL 17 and 18.
///
/// # Safety
/// As for the function itself.
unsafe fn foreignscan_path(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    cost: PathCost,
    outer: pg_sys::Relids,
) -> *mut pg_sys::ForeignPath {
    // SAFETY: by the caller's promise.
    unsafe {
        pg_sys::create_foreignscan_path(
            root,
            rel,
            std::ptr::null_mut(),
            cost.rows,
            #[cfg(feature = "pg18")]
            0,
            cost.startup,
            cost.total,
            std::ptr::null_mut(),
            outer,
            std::ptr::null_mut(),
            #[cfg(any(feature = "pg17", feature = "pg18"))]
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    }
}

/// The planner's cost units: one page read in sequence, one row, one operator.
pub fn cost_units() -> (f64, f64, f64) {
    // SAFETY: reads settings on the main thread.
    unsafe { (pg_sys::seq_page_cost, pg_sys::cpu_tuple_cost, pg_sys::cpu_operator_cost) }
}
