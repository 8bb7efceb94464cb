//! Text that a user gives as one SQL expression, and where in it PostgreSQL finds an error.

use pgrx::pg_sys;

use super::foreign::list_pointers;
use super::server_text;
use super::xact::{self, Caught};
use crate::error::Result;

/// Whether `text` is one expression and nothing else: no second statement, no other clause, no closing parenthesis that
/// is not its own. Such a text in parentheses is an expression again, the same. Syntax errors are raised.
pub fn is_one(text: &str) -> Result<bool> {
    let statement = server_text::statement(&format!("SELECT {text}\n"))?;
    // SAFETY: the parser reads a C string; what it returns is a list of RawStmt in the current memory context.
    unsafe {
        let parsed = pg_sys::raw_parser(statement.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        let statements = list_pointers::<pg_sys::RawStmt>(parsed);
        let [statement] = statements[..] else { return Ok(false) };
        // A statement that a semicolon ended has a length.
        let whole = (*statement).stmt_len == 0;
        Ok(whole && (*(*statement).stmt).type_ == pg_sys::NodeTag::T_SelectStmt && is_bare(&*(*statement).stmt.cast()))
    }
}

/// Whether the statement is `SELECT` with one unnamed column.
///
/// # Safety
/// A live parse tree.
unsafe fn is_bare(select: &pg_sys::SelectStmt) -> bool {
    let lists = [
        select.distinctClause,
        select.fromClause,
        select.groupClause,
        select.windowClause,
        select.valuesLists,
        select.sortClause,
        select.lockingClause,
    ];
    let nodes = [select.whereClause, select.havingClause, select.limitOffset, select.limitCount];
    let nothing_else = lists.iter().all(|list| list.is_null())
        && nodes.iter().all(|node| node.is_null())
        && select.intoClause.is_null()
        && select.withClause.is_null()
        && select.op == pg_sys::SetOperation::SETOP_NONE;
    // SAFETY: the target list of a SelectStmt holds ResTargets.
    unsafe {
        match list_pointers::<pg_sys::ResTarget>(select.targetList)[..] {
            [column] => nothing_else && (*column).name.is_null(),
            _ => false,
        }
    }
}

/// An error, and the character of the statement it is at, from 1; 0 when PostgreSQL does not say.
#[derive(Debug)]
pub struct Located {
    /// The error.
    pub error: Caught,
    /// The place.
    pub position: i32,
}

/// Runs `work` in a subtransaction; an error comes with its place in the statement.
pub fn located<T>(work: impl FnOnce() -> T) -> Result<T, Located> {
    let mut position: i32 = 0;
    let mut context = pg_sys::ErrorContextCallback {
        callback: Some(note_position),
        arg: (&raw mut position).cast(),
        ..Default::default()
    };
    // SAFETY: the callback is on the stack of errors for the call only; the subtransaction returns in any case but for
    // a cancel, which unwinds to a handler that puts its own stack back.
    let outcome = unsafe {
        let previous = pg_sys::error_context_stack;
        context.previous = previous;
        pg_sys::error_context_stack = &raw mut context;
        let outcome = xact::subtransaction(work);
        pg_sys::error_context_stack = previous;
        outcome
    };
    outcome.map_err(|error| Located { error, position })
}

/// Called while an error is being reported.
unsafe extern "C-unwind" fn note_position(arg: *mut std::ffi::c_void) {
    // SAFETY: `arg` is the position that `located` keeps for as long as the callback is registered; within an error
    // callback both getters may be called.
    unsafe {
        let position = pg_sys::geterrposition().max(pg_sys::getinternalerrposition());
        if position > 0 {
            *arg.cast::<i32>() = position;
        }
    }
}
