//! Expressions of a foreign scan that the executor evaluates.

use pgrx::{pg_guard, pg_sys};

use super::constant::Constant;

/// The value of an expression at one moment.
#[derive(Debug, Clone, Copy)]
pub enum Evaluated {
    /// Not known before the query runs.
    Unknown,
    /// NULL
    Null,
    /// A value, valid until the per-tuple memory is reset.
    Value(Constant),
}

impl Evaluated {
    pub(super) fn new(type_oid: pg_sys::Oid, datum: pg_sys::Datum, is_null: bool) -> Self {
        if is_null { Self::Null } else { Self::Value(Constant::new(type_oid, datum)) }
    }
}

/// Expressions made ready for one scan. Their state belongs to the query's memory.
#[derive(Debug)]
pub struct Expressions {
    context: *mut pg_sys::ExprContext,
    states: Vec<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    state: *mut pg_sys::ExprState,
    type_oid: pg_sys::Oid,
    known_at_start: bool,
}

impl Expressions {
    /// # Safety
    /// Called in BeginForeignScan with its live node; the expressions are the plan's `fdw_exprs`.
    pub(super) unsafe fn prepare(node: *mut pg_sys::ForeignScanState, nodes: Vec<*mut pg_sys::Expr>) -> Self {
        // SAFETY: by the caller's promise.
        unsafe {
            let parent = &raw mut (*node).ss.ps;
            let estate = (*parent).state;
            let ready = |expression: *mut pg_sys::Expr| State {
                state: pg_sys::ExecInitExpr(expression, parent),
                type_oid: pg_sys::exprType(expression.cast()),
                known_at_start: known_at_start(expression, (*estate).es_param_list_info),
            };
            Self { context: (*parent).ps_ExprContext, states: nodes.into_iter().map(ready).collect() }
        }
    }

    /// The values now. Called while the scan runs.
    pub fn evaluate(&self) -> Vec<Evaluated> {
        self.states.iter().map(|state| self.value(state)).collect()
    }

    /// Whether no value depends on other parts of the plan.
    pub fn are_known_at_start(&self) -> bool {
        self.states.iter().all(|state| state.known_at_start)
    }

    /// The values that EXPLAIN may show: those that do not depend on other parts of the plan.
    pub fn evaluate_at_start(&self) -> Vec<Evaluated> {
        let value = |state: &State| if state.known_at_start { self.value(state) } else { Evaluated::Unknown };
        self.states.iter().map(value).collect()
    }

    fn value(&self, state: &State) -> Evaluated {
        let mut is_null = false;
        // SAFETY: state and context belong to the scan's query and are live while it is.
        let datum = unsafe { pg_sys::ExecEvalExprSwitchContext(state.state, self.context, &mut is_null) };
        Evaluated::new(state.type_oid, datum, is_null)
    }
}

/// Whether the expression has no parameters but those of the statement, and these have values.
///
/// # Safety
/// `expression` is live, `params` NULL or live.
unsafe fn known_at_start(expression: *mut pg_sys::Expr, params: pg_sys::ParamListInfo) -> bool {
    let mut has_values = !params.is_null();
    // SAFETY: by the caller's promise; the walker gets the flag back.
    unsafe { !is_unknown(expression.cast(), (&raw mut has_values).cast()) }
}

/// Whether a parameter is found whose value is not known; `has_values` tells whether those of the statement are.
#[pg_guard]
unsafe extern "C-unwind" fn is_unknown(node: *mut pg_sys::Node, has_values: *mut std::ffi::c_void) -> bool {
    // SAFETY: a node of an expression is NULL or live; a Param node is a Param.
    unsafe {
        if node.is_null() {
            return false;
        }
        if (*node).type_ == pg_sys::NodeTag::T_Param {
            let is_statements = (*node.cast::<pg_sys::Param>()).paramkind == pg_sys::ParamKind::PARAM_EXTERN;
            return !(is_statements && *has_values.cast::<bool>());
        }
        pg_sys::expression_tree_walker(node, Some(is_unknown), has_values)
    }
}
