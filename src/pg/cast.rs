//! Casts of archived values to the type that their column has now, as ALTER TABLE … SET DATA TYPE would have done.

use std::ffi::CStr;

use archive_core::manifest::CastSettings;
use pgrx::{PgBox, pg_sys};

use super::columns::Column;
use super::guc::GucNest;

/// A type with its modifier and collation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeRef {
    /// Type.
    pub oid: pg_sys::Oid,
    /// Type modifier, -1 for none.
    pub typmod: i32,
    /// Collation, invalid for types without one.
    pub collation: pg_sys::Oid,
}

impl TypeRef {
    /// The type of this SQL name; `None` when there is no such type (any more).
    pub fn named(name: &str) -> Option<Self> {
        let (oid, typmod) = resolve_type(name)?;
        // SAFETY: catalog lookup of an existing type.
        let collation = unsafe { pg_sys::get_typcollation(oid) };
        Some(Self { oid, typmod, collation })
    }

    /// The type with this OID; `None` when there is no such type (any more).
    pub fn numbered(oid: pg_sys::Oid, typmod: i32) -> Option<Self> {
        // SAFETY: catalog lookups; an unknown type has no type class.
        let collation = unsafe {
            if pg_sys::get_typtype(oid) == 0 {
                return None;
            }
            pg_sys::get_typcollation(oid)
        };
        Some(Self { oid, typmod, collation })
    }

    /// The type of a column.
    pub fn of(column: &Column) -> Self {
        Self { oid: column.type_oid, typmod: column.typmod, collation: column.collation }
    }

    /// A column of this type, for its I/O.
    pub fn as_column(&self, index: usize, name: &str) -> Column {
        Column {
            index,
            name: name.to_owned(),
            type_oid: self.oid,
            typmod: self.typmod,
            collation: self.collation,
            not_null: false,
            is_virtual: false,
        }
    }
}

/// One cast of a chain.
#[derive(Debug, Clone, Copy)]
pub struct CastStep {
    /// To what.
    pub to: TypeRef,
    /// `CAST (…)`, or what an assignment does.
    pub explicit: bool,
}

fn apply(settings: &CastSettings) -> GucNest {
    GucNest::new()
        .set(c"timezone", &settings.time_zone)
        .set(c"datestyle", &settings.date_style)
        .set(c"intervalstyle", &settings.interval_style)
}

/// A chain of casts made ready. It lives in the memory context that was current when it was made.
#[derive(Debug)]
pub struct Cast {
    state: *mut pg_sys::ExprState,
    context: *mut pg_sys::ExprContext,
    settings: Option<CastSettings>,
}

impl Cast {
    /// The casts from `from`, one after the other; `None` when PostgreSQL has no such cast.
    pub fn new(from: TypeRef, steps: &[CastStep], settings: CastSettings) -> Option<Self> {
        // SAFETY: nodes are made in the current memory context, where the state lives too.
        unsafe {
            let mut node = placeholder(from);
            for step in steps {
                let (context, form) = if step.explicit {
                    (pg_sys::CoercionContext::COERCION_EXPLICIT, pg_sys::CoercionForm::COERCE_EXPLICIT_CAST)
                } else {
                    (pg_sys::CoercionContext::COERCION_ASSIGNMENT, pg_sys::CoercionForm::COERCE_IMPLICIT_CAST)
                };
                let from = pg_sys::exprType(node);
                let (to, typmod) = (step.to.oid, step.to.typmod);
                node = pg_sys::coerce_to_target_type(std::ptr::null_mut(), node, from, to, typmod, context, form, -1);
                if node.is_null() {
                    return None;
                }
            }
            pg_sys::assign_expr_collations(std::ptr::null_mut(), node);
            let expression = pg_sys::expression_planner(node.cast());
            let settings = pg_sys::contain_mutable_functions(expression.cast()).then_some(settings);
            let state = pg_sys::ExecInitExpr(expression, std::ptr::null_mut());
            Some(Self { state, context: pg_sys::CreateStandaloneExprContext(), settings })
        }
    }

    /// The value after the casts, in the current memory context. Casts raise PostgreSQL's own errors.
    pub(super) fn apply(&self, value: Option<pg_sys::Datum>) -> Option<pg_sys::Datum> {
        let _settings = self.settings.as_ref().map(apply);
        // SAFETY: state and context live with the cast; the value is of the type the chain begins with.
        unsafe {
            (*self.context).caseValue_isNull = value.is_none();
            (*self.context).caseValue_datum = value.unwrap_or(pg_sys::Datum::null());
            evaluate(self.state, self.context)
        }
    }
}

/// # Safety
/// `state` is ready and `context` holds what it refers to.
pub(super) unsafe fn evaluate(
    state: *mut pg_sys::ExprState,
    context: *mut pg_sys::ExprContext,
) -> Option<pg_sys::Datum> {
    let mut is_null = false;
    // SAFETY: by the caller's promise; ExecInitExpr sets the function.
    unsafe {
        let function = (*state).evalfunc?;
        let datum = function(state, context, &mut is_null);
        (!is_null).then_some(datum)
    }
}

/// # Safety
/// Allocates in the current memory context, where the node must not outlive it.
unsafe fn placeholder(from: TypeRef) -> *mut pg_sys::Node {
    // SAFETY: alloc_node returns a zeroed node with the tag that belongs to the type.
    let mut node = unsafe { PgBox::<pg_sys::CaseTestExpr>::alloc_node(pg_sys::NodeTag::T_CaseTestExpr) };
    node.typeId = from.oid;
    node.typeMod = from.typmod;
    node.collation = from.collation;
    node.into_pg().cast()
}

/// What the parser makes of a type's name; `None` when there is no such type.
fn resolve_type(name: &str) -> Option<(pg_sys::Oid, i32)> {
    let name = std::ffi::CString::new(name).ok()?;
    let (mut oid, mut typmod) = (pg_sys::InvalidOid, -1);
    parse_type(&name, &mut oid, &mut typmod);
    (oid != pg_sys::InvalidOid).then_some((oid, typmod))
}

fn parse_type(name: &CStr, oid: &mut pg_sys::Oid, typmod: &mut i32) {
    #[cfg(any(feature = "pg14", feature = "pg15"))]
    // SAFETY: a NUL-terminated string and valid out pointers; with missing_ok an unknown type is InvalidOid.
    unsafe {
        pg_sys::parseTypeString(name.as_ptr(), oid, typmod, true);
    }
    #[cfg(not(any(feature = "pg14", feature = "pg15")))]
    {
        let mut context = pg_sys::ErrorSaveContext { type_: pg_sys::NodeTag::T_ErrorSaveContext, ..Default::default() };
        // SAFETY: as above; a soft error goes to the context.
        unsafe {
            if !pg_sys::parseTypeString(name.as_ptr(), oid, typmod, (&raw mut context).cast()) {
                *oid = pg_sys::InvalidOid;
            }
        }
    }
}
