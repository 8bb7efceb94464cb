//! The shapes of WHERE clauses that a scan can use: one column of the scanned relation against one value.

use pgrx::pg_sys;

use super::foreign::list_pointers;

/// A clause that the scan of relation `relid` of a query sees.
#[derive(Debug, Clone, Copy)]
pub struct Clause {
    pub(super) root: *mut pg_sys::PlannerInfo,
    pub(super) relid: u32,
    pub(super) node: *mut pg_sys::Node,
}

/// A value in a clause: an expression without columns of the scanned relation and without volatile functions.
#[derive(Debug, Clone, Copy)]
pub struct Expression {
    root: *mut pg_sys::PlannerInfo,
    pub(super) node: *mut pg_sys::Node,
}

/// The column of a clause.
#[derive(Debug, Clone, Copy)]
pub struct ClauseColumn {
    /// Attribute number, above 0.
    pub attribute: i16,
    /// Type of the column.
    pub type_oid: pg_sys::Oid,
}

/// What a clause says.
#[derive(Debug, Clone, Copy)]
pub enum ClauseTest {
    /// `column operator value`
    Operator {
        /// The operator, commuted where the column was on the right.
        operator: pg_sys::Oid,
        /// Collation of the comparison.
        collation: pg_sys::Oid,
        /// The value.
        value: Expression,
    },
    /// `column operator ANY (array)`
    Any {
        /// The operator.
        operator: pg_sys::Oid,
        /// Collation of the comparison.
        collation: pg_sys::Oid,
        /// The array.
        array: Expression,
    },
    /// The column is NULL, or is not.
    Null(bool),
    /// The boolean column has this value.
    Is(bool),
}

impl Clause {
    /// The column and the test, if the clause has one of the shapes.
    pub fn recognise(&self) -> Option<(ClauseColumn, ClauseTest)> {
        // SAFETY: the node is a live expression of the planner, and a node with a tag is of the tag's struct.
        unsafe {
            match (*self.node).type_ {
                pg_sys::NodeTag::T_OpExpr => self.operator(&*self.node.cast()),
                pg_sys::NodeTag::T_ScalarArrayOpExpr => self.any(&*self.node.cast()),
                pg_sys::NodeTag::T_NullTest => self.null_test(&*self.node.cast()),
                pg_sys::NodeTag::T_BooleanTest => self.boolean_test(&*self.node.cast()),
                pg_sys::NodeTag::T_BoolExpr => self.negation(&*self.node.cast()),
                pg_sys::NodeTag::T_Var => Some((self.column(self.node)?, ClauseTest::Is(true))),
                _ => None,
            }
        }
    }

    fn operator(&self, clause: &pg_sys::OpExpr) -> Option<(ClauseColumn, ClauseTest)> {
        // SAFETY: args of a live OpExpr.
        let args = unsafe { list_pointers::<pg_sys::Node>(clause.args) };
        let [left, right] = args[..] else { return None };
        let (column, value, operator) = match (self.column(left), self.column(right)) {
            (Some(column), None) => (column, right, clause.opno),
            // SAFETY: catalog lookup.
            (None, Some(column)) => (column, left, unsafe { pg_sys::get_commutator(clause.opno) }),
            _ => return None,
        };
        let value = self.value(value)?;
        let test = ClauseTest::Operator { operator, collation: clause.inputcollid, value };
        (operator != pg_sys::InvalidOid).then_some((column, test))
    }

    fn any(&self, clause: &pg_sys::ScalarArrayOpExpr) -> Option<(ClauseColumn, ClauseTest)> {
        // SAFETY: args of a live ScalarArrayOpExpr.
        let args = unsafe { list_pointers::<pg_sys::Node>(clause.args) };
        let [left, right] = args[..] else { return None };
        let (column, array) = (self.column(left)?, self.value(right)?);
        let test = ClauseTest::Any { operator: clause.opno, collation: clause.inputcollid, array };
        clause.useOr.then_some((column, test))
    }

    fn null_test(&self, clause: &pg_sys::NullTest) -> Option<(ClauseColumn, ClauseTest)> {
        let column = self.column(clause.arg.cast())?;
        let is_null = clause.nulltesttype == pg_sys::NullTestType::IS_NULL;
        (!clause.argisrow).then_some((column, ClauseTest::Null(is_null)))
    }

    fn boolean_test(&self, clause: &pg_sys::BooleanTest) -> Option<(ClauseColumn, ClauseTest)> {
        let test = match clause.booltesttype {
            pg_sys::BoolTestType::IS_TRUE => ClauseTest::Is(true),
            pg_sys::BoolTestType::IS_FALSE => ClauseTest::Is(false),
            pg_sys::BoolTestType::IS_UNKNOWN => ClauseTest::Null(true),
            pg_sys::BoolTestType::IS_NOT_UNKNOWN => ClauseTest::Null(false),
            _ => return None,
        };
        Some((self.column(clause.arg.cast())?, test))
    }

    fn negation(&self, clause: &pg_sys::BoolExpr) -> Option<(ClauseColumn, ClauseTest)> {
        // SAFETY: args of a live BoolExpr.
        let args = unsafe { list_pointers::<pg_sys::Node>(clause.args) };
        let [arg] = args[..] else { return None };
        let column = self.column(arg)?;
        (clause.boolop == pg_sys::BoolExprType::NOT_EXPR).then_some((column, ClauseTest::Is(false)))
    }

    /// The column of the scanned relation that the node is, behind casts that change nothing.
    fn column(&self, node: *mut pg_sys::Node) -> Option<ClauseColumn> {
        // SAFETY: a live expression tree.
        let var = unsafe { plain_var(node)? };
        let ours = varno(var) == self.relid && var.varlevelsup == 0 && var.varattno > 0;
        ours.then_some(ClauseColumn { attribute: var.varattno, type_oid: var.vartype })
    }

    /// The node as a value that can be computed before the scan.
    fn value(&self, node: *mut pg_sys::Node) -> Option<Expression> {
        // SAFETY: a live expression tree of this planner run.
        let usable = unsafe {
            !pg_sys::bms_is_member(self.relid as i32, pg_sys::pull_varnos(self.root, node))
                && !pg_sys::contain_volatile_functions(node)
                && !pg_sys::contain_subplans(node)
        };
        usable.then_some(Expression { root: self.root, node })
    }
}

/// # Safety
/// `node` is a live expression.
pub(super) unsafe fn plain_var<'a>(mut node: *mut pg_sys::Node) -> Option<&'a pg_sys::Var> {
    // SAFETY: a node with a tag is of the tag's struct.
    unsafe {
        while (*node).type_ == pg_sys::NodeTag::T_RelabelType {
            node = (*node.cast::<pg_sys::RelabelType>()).arg.cast();
        }
        ((*node).type_ == pg_sys::NodeTag::T_Var).then(|| &*node.cast::<pg_sys::Var>())
    }
}

/// The relation of a column; PostgreSQL 16 made it signed.
#[allow(clippy::unnecessary_cast)]
pub(super) fn varno(var: &pg_sys::Var) -> u32 {
    var.varno as u32
}

impl Expression {
    /// The constant TRUE or FALSE.
    pub fn boolean(clause: &Clause, value: bool) -> Self {
        // SAFETY: makes a Const.
        Self { root: clause.root, node: unsafe { pg_sys::makeBoolConst(value, false) } }
    }

    /// The value the planner expects it to have; good for estimates only.
    pub fn estimate(&self) -> super::expr::Evaluated {
        // SAFETY: a live expression of this planner run; a Const node is a Const.
        unsafe {
            let node = pg_sys::estimate_expression_value(self.root, self.node);
            match (*node).type_ {
                pg_sys::NodeTag::T_Const => {
                    let constant = &*node.cast::<pg_sys::Const>();
                    super::expr::Evaluated::new(constant.consttype, constant.constvalue, constant.constisnull)
                }
                _ => super::expr::Evaluated::Unknown,
            }
        }
    }
}
