//! Queries that ask a relation only how many rows it has, and for the lowest and highest of its values.

use pgrx::pg_sys;

use super::clause;
use super::constant::default_btree;
use super::foreign::list_pointers;
use super::planner::BaseRel;

/// `Anum_pg_aggregate_aggsortop`
const AGGSORTOP: i16 = 16;

/// `count(*)`
const COUNT: u32 = pg_sys::F_COUNT_;

impl BaseRel {
    /// Whether all that the query wants of this relation is `count(*)` and the `min` and `max` of plain columns, over all of its
    /// rows: the only relation in FROM or, as a partition or a branch of UNION ALL, a part of it. Then two rows with the lowest and
    /// highest values of each column, and rows of NULLs up to the number of all, say as much as the rows themselves.
    pub fn is_asked_for_extremes_only(&self) -> bool {
        // SAFETY: live structs of the planner run; a node with a tag is of the tag's struct.
        unsafe {
            let query = &*(*self.root).parse;
            let plain = query.hasAggs
                && query.groupClause.is_null()
                && query.groupingSets.is_null()
                && !query.hasWindowFuncs
                && !query.hasTargetSRFs
                && !query.hasSubLinks;
            plain
                && self.is_all_of_from()
                && (*self.rel).baserestrictinfo.is_null()
                && (*self.rel).joininfo.is_null()
                && list_pointers::<pg_sys::Node>((*(*self.rel).reltarget).exprs).into_iter().all(|node| is_column(node))
                && [query.targetList.cast(), query.havingQual].into_iter().all(|tree| takes_extremes(tree))
                && (!self.is_branch_of_union() || self.has_collations_of_aggregates())
        }
    }

    /// Whether it is, or is a part of, a branch of UNION ALL: its columns may have another collation than those of the whole.
    fn is_branch_of_union(&self) -> bool {
        // SAFETY: the array, if there is one, has an entry for each relation of the query, NULL for those that are no children.
        unsafe {
            let children = (*self.root).append_rel_array;
            let mut relation = (*self.rel).relid;
            while !children.is_null() {
                let Some(child) = (*children.add(relation as usize)).as_ref() else { break };
                if child.parent_reltype == pg_sys::InvalidOid {
                    return true;
                }
                relation = child.parent_relid;
            }
            false
        }
    }

    /// Whether all columns that have a collation have that of every aggregate that has one.
    fn has_collations_of_aggregates(&self) -> bool {
        // SAFETY: live expression trees of the planner run; `takes_extremes` found nothing but aggregates in them.
        unsafe {
            let query = &*(*self.root).parse;
            let columns = list_pointers::<pg_sys::Node>((*(*self.rel).reltarget).exprs);
            let ours: Vec<_> = columns.into_iter().map(|node| pg_sys::exprCollation(node)).collect();
            let wanted = [query.targetList.cast(), query.havingQual].into_iter().flat_map(|tree| aggregates(tree));
            wanted.filter_map(|node| node.cast::<pg_sys::Aggref>().as_ref()).all(|aggregate| {
                let valid = |collation: &pg_sys::Oid| *collation != pg_sys::InvalidOid;
                !valid(&aggregate.inputcollid)
                    || ours.iter().filter(|collation| valid(collation)).all(|ours| *ours == aggregate.inputcollid)
            })
        }
    }

    fn is_all_of_from(&self) -> bool {
        // SAFETY: a live planner run; the set is complete before paths are made.
        unsafe { pg_sys::bms_membership((*self.root).all_baserels) == pg_sys::BMS_Membership::BMS_SINGLETON }
    }
}

/// Whether every aggregate in the tree is one of these.
///
/// # Safety
/// `tree` is NULL or live.
unsafe fn takes_extremes(tree: *mut pg_sys::Node) -> bool {
    // SAFETY: by the caller's promise.
    unsafe {
        aggregates(tree).into_iter().all(|node| {
            (*node).type_ == pg_sys::NodeTag::T_Aggref && is_count_or_extreme(&*node.cast::<pg_sys::Aggref>())
        })
    }
}

/// The aggregates of a tree, and the columns outside of them.
///
/// # Safety
/// As for [`takes_extremes`].
unsafe fn aggregates(tree: *mut pg_sys::Node) -> Vec<*mut pg_sys::Node> {
    let flags = pg_sys::PVC_INCLUDE_AGGREGATES | pg_sys::PVC_RECURSE_WINDOWFUNCS | pg_sys::PVC_RECURSE_PLACEHOLDERS;
    // SAFETY: by the caller's promise.
    unsafe { list_pointers(pg_sys::pull_var_clause(tree, flags as i32)) }
}

/// # Safety
/// A live node.
unsafe fn is_count_or_extreme(aggregate: &pg_sys::Aggref) -> bool {
    let plain = aggregate.aggfilter.is_null()
        && aggregate.aggorder.is_null()
        && aggregate.aggdistinct.is_null()
        && aggregate.agglevelsup == 0;
    // SAFETY: args of a live Aggref is a list of TargetEntries.
    let args = unsafe { list_pointers::<pg_sys::TargetEntry>(aggregate.args) };
    match args[..] {
        [] => plain && aggregate.aggfnoid.to_u32() == COUNT,
        // SAFETY: the expression of a live TargetEntry.
        [arg] => plain && unsafe { is_extreme(aggregate, (*arg).expr.cast()) },
        _ => false,
    }
}

/// Whether it is `min` or `max` by the default order of a column's type, in the column's collation.
///
/// # Safety
/// `arg` is a live expression.
unsafe fn is_extreme(aggregate: &pg_sys::Aggref, arg: *mut pg_sys::Node) -> bool {
    let (mut family, mut input, mut strategy) = (pg_sys::InvalidOid, pg_sys::InvalidOid, 0);
    // SAFETY: by the caller's promise; catalog lookups into valid places.
    unsafe {
        let Some(var) = clause::plain_var(arg) else { return false };
        let Some(operator) = sort_operator(aggregate.aggfnoid) else { return false };
        let ordered = pg_sys::get_ordering_op_properties(operator, &mut family, &mut input, &mut strategy);
        ordered
            && is_column(arg)
            && aggregate.inputcollid == var.varcollid
            && default_btree(var.vartype).is_some_and(|(default, _)| default == family)
    }
}

/// The operator that an aggregate is the first of its arguments by, if it is that of a sorted list.
fn sort_operator(aggregate: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a lookup in the catalog's cache; the tuple is a pg_aggregate row and is given back.
    unsafe {
        let tuple =
            pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::AGGFNOID as i32, pg_sys::Datum::from(aggregate));
        if tuple.is_null() {
            return None;
        }
        let mut is_null = false;
        let cache = pg_sys::SysCacheIdentifier::AGGFNOID as i32;
        let operator = pg_sys::SysCacheGetAttr(cache, tuple, AGGSORTOP, &mut is_null);
        pg_sys::ReleaseSysCache(tuple);
        let operator = pg_sys::Oid::from(operator.value() as u32);
        (!is_null && operator != pg_sys::InvalidOid).then_some(operator)
    }
}

/// Whether a value is that of a column, as the column's type orders and collates it.
///
/// # Safety
/// `node` is a live expression.
unsafe fn is_column(node: *mut pg_sys::Node) -> bool {
    // SAFETY: by the caller's promise; lookups in the type cache.
    unsafe {
        let Some(var) = clause::plain_var(node) else { return false };
        let families = [var.vartype, pg_sys::exprType(node)].map(|of| default_btree(of).map(|(family, _)| family));
        var.varlevelsup == 0
            && var.varattno > 0
            && families[0].is_some()
            && families[0] == families[1]
            && pg_sys::exprCollation(node) == var.varcollid
    }
}
