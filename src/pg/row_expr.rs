//! Default and generation expressions of columns: their value when a column is added, and for each archived row.

use pgrx::pg_sys;

use super::cast::evaluate;
use super::datum;
use super::foreign_scan::fill_slot;
use super::guc::GucNest;
use super::relation::Relation;
use super::row::RowBuffer;

/// What a column's default fills rows with that are there when the column is added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddedDefault {
    /// NULL.
    Null,
    /// The same value in every row, as text that the type reads back identically.
    Constant(String),
    /// A value of its own in each row: volatile functions, sequences, identity.
    PerRow,
    /// Computed from the row's other columns.
    Generated,
}

/// What ALTER TABLE … ADD COLUMN fills rows with for the column at `index`. Runs user code: switch to the owner first.
pub fn added_default(relation: &Relation, index: usize) -> AddedDefault {
    // SAFETY: index < natts of an open relation; nodes and state live in the current memory context.
    unsafe {
        let attribute = super::columns::tuple_desc_attr(relation.tupdesc(), index);
        if (*attribute).attgenerated != 0 {
            return AddedDefault::Generated;
        }
        let node = pg_sys::build_column_default(relation.as_ptr(), index as i32 + 1);
        if node.is_null() {
            return AddedDefault::Null;
        }
        let expression = pg_sys::expression_planner(node.cast());
        if (*attribute).attidentity != 0 || pg_sys::contain_volatile_functions(expression.cast()) {
            return AddedDefault::PerRow;
        }
        let state = pg_sys::ExecInitExpr(expression, std::ptr::null_mut());
        let context = pg_sys::CreateStandaloneExprContext();
        match evaluate(state, context) {
            Some(value) => {
                let _text = GucNest::lossless_text();
                datum::output_text((*attribute).atttypid, value).map_or(AddedDefault::PerRow, AddedDefault::Constant)
            }
            None => AddedDefault::Null,
        }
    }
}

/// The default or generation expression of a column, evaluated for each row of another relation that has the columns it
/// refers to. It lives in the memory context that was current when it was made.
#[derive(Debug)]
pub struct RowExpression {
    state: *mut pg_sys::ExprState,
    context: *mut pg_sys::ExprContext,
    slot: *mut pg_sys::TupleTableSlot,
    needs: Vec<usize>,
}

impl RowExpression {
    /// The generation expression (`generated`) or default of the column at `index` of `source`, over rows of `target`;
    /// columns are matched by name. `None` without one, or when `target` lacks a column that it refers to.
    pub fn new(source: &Relation, index: usize, generated: bool, target: &Relation) -> Option<Self> {
        // SAFETY: open relations; nodes and state live in the current memory context.
        unsafe {
            let attribute = super::columns::tuple_desc_attr(source.tupdesc(), index);
            if ((*attribute).attgenerated != 0) != generated {
                return None;
            }
            let node = pg_sys::build_column_default(source.as_ptr(), index as i32 + 1);
            if node.is_null() {
                return None;
            }
            let map = attribute_map(source, target);
            let mut whole_row = false;
            let refers = referred(node);
            let known = |attribute: &i32| *attribute > 0 && *(*map).attnums.add(*attribute as usize - 1) > 0;
            if !refers.iter().all(known) {
                return None;
            }
            let needs = refers.iter().map(|at| *(*map).attnums.add(*at as usize - 1) as usize - 1).collect();
            let node = pg_sys::map_variable_attnos(node, 1, 0, map, pg_sys::InvalidOid, &mut whole_row);
            let expression = pg_sys::expression_planner(node.cast());
            let state = pg_sys::ExecInitExpr(expression, std::ptr::null_mut());
            let context = pg_sys::CreateStandaloneExprContext();
            let descriptor = pg_sys::CreateTupleDescCopy(target.tupdesc());
            let slot = pg_sys::MakeSingleTupleTableSlot(descriptor, &raw const pg_sys::TTSOpsVirtual);
            (*context).ecxt_scantuple = slot;
            Some(Self { state, context, slot, needs })
        }
    }

    /// Indexes of the columns that it refers to.
    pub fn needs(&self) -> &[usize] {
        &self.needs
    }

    /// Sets the column at `index` of `row` to the expression's value over the row.
    pub fn set(&self, row: &mut RowBuffer, index: usize) {
        // SAFETY: slot and state live with the expression; the slot has the row's number of attributes.
        let value = unsafe {
            fill_slot(self.slot, row);
            evaluate(self.state, self.context)
        };
        row.set(index, value);
    }
}

/// Attribute numbers that the expression refers to, 0 for the whole row.
///
/// # Safety
/// `node` is a live expression over relation 1.
unsafe fn referred(node: *mut pg_sys::Node) -> Vec<i32> {
    let mut set = std::ptr::null_mut();
    let mut found = Vec::new();
    // SAFETY: by the caller's promise; members are shifted so that system columns fit.
    unsafe {
        pg_sys::pull_varattnos(node, 1, &mut set);
        let mut member = pg_sys::bms_next_member(set, -1);
        while member >= 0 {
            found.push(member + pg_sys::FirstLowInvalidHeapAttributeNumber);
            member = pg_sys::bms_next_member(set, member);
        }
    }
    found
}

/// # Safety
/// Both relations are open.
unsafe fn attribute_map(source: &Relation, target: &Relation) -> *mut pg_sys::AttrMap {
    let (from, to) = (super::columns::of_relation(source), super::columns::of_relation(target));
    // SAFETY: make_attrmap returns a zeroed map with an entry for each attribute of the source.
    unsafe {
        let map = pg_sys::make_attrmap(source.attribute_count() as i32);
        for column in from {
            if let Some(same) = to.iter().find(|other| other.name == column.name) {
                *(*map).attnums.add(column.index) = same.index as i16 + 1;
            }
        }
        map
    }
}
