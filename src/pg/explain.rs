//! Properties of a node in EXPLAIN's output, in each of its formats.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

/// The output being written.
#[derive(Debug)]
pub struct Explain {
    state: *mut pg_sys::ExplainState,
}

impl Explain {
    /// # Safety
    /// `state` comes from an explain callback that is running.
    pub unsafe fn new(state: *mut pg_sys::ExplainState) -> Self {
        Self { state }
    }

    /// Whether the query ran.
    pub fn is_analyze(&self) -> bool {
        // SAFETY: live during the callback.
        unsafe { (*self.state).analyze }
    }

    /// Whether people read it, not programs.
    pub fn is_text(&self) -> bool {
        // SAFETY: live during the callback.
        unsafe { (*self.state).format == pg_sys::ExplainFormat::EXPLAIN_FORMAT_TEXT }
    }

    /// Writes a text property.
    pub fn text(&mut self, label: &CStr, value: &str) {
        if let Ok(value) = CString::new(value) {
            // SAFETY: both strings outlive the call.
            unsafe { pg_sys::ExplainPropertyText(label.as_ptr(), value.as_ptr(), self.state) }
        }
    }

    /// Writes a number.
    pub fn integer(&mut self, label: &CStr, value: u64) {
        // SAFETY: the label outlives the call; the unit may be NULL.
        unsafe { pg_sys::ExplainPropertyInteger(label.as_ptr(), std::ptr::null(), value as i64, self.state) }
    }

    /// Writes whether something is so.
    pub fn boolean(&mut self, label: &CStr, value: bool) {
        // SAFETY: the label outlives the call.
        unsafe { pg_sys::ExplainPropertyBool(label.as_ptr(), value, self.state) }
    }
}
