//! Triggers that run now.

use pgrx::{direct_function_call, pg_sys};

/// How many triggers are running, one within the other: `pg_trigger_depth()`.
pub fn depth() -> i32 {
    // SAFETY: the function reads a variable of this backend and takes no argument.
    unsafe { direct_function_call::<i32>(pg_sys::pg_trigger_depth, &[]) }.unwrap_or(0)
}
