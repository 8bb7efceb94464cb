//! Settings changed for a scope, and the reserved prefix.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

/// Warns about misspelt `prefix.*` settings from now on.
pub fn reserve_prefix(prefix: &'static CStr) {
    // SAFETY: the prefix is a static C string; called from _PG_init on the main thread.
    unsafe {
        #[cfg(feature = "pg14")]
        pg_sys::EmitWarningsOnPlaceholders(prefix.as_ptr());
        #[cfg(not(feature = "pg14"))]
        pg_sys::MarkGUCPrefixReserved(prefix.as_ptr());
    }
}

/// Sets a setting of this process for good.
pub fn override_setting(name: &CStr, value: &CStr) {
    // SAFETY: both strings outlive the call.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

/// A nest level of settings: what is set through it is undone on drop. On an error the (sub)transaction undoes it.
#[derive(Debug)]
pub struct GucNest {
    level: std::ffi::c_int,
}

impl GucNest {
    /// Opens a nest level.
    pub fn new() -> Self {
        // SAFETY: opens a level that Drop closes.
        Self { level: unsafe { pg_sys::NewGUCNestLevel() } }
    }

    /// Sets `name` until the level is closed.
    #[must_use]
    pub fn set(self, name: &CStr, value: &str) -> Self {
        if let Ok(value) = CString::new(value) {
            // SAFETY: both strings outlive the call; GUC_ACTION_SAVE belongs to the open level.
            unsafe {
                pg_sys::set_config_option(
                    name.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_SUSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0,
                    false,
                );
            }
        }
        self
    }

    /// Settings under which every output function prints a value that its input function reads back identically,
    /// and the same text in every session.
    pub fn lossless_text() -> Self {
        Self::new()
            .set(c"datestyle", "ISO")
            .set(c"intervalstyle", "postgres")
            .set(c"extra_float_digits", "3")
            .set(c"timezone", "UTC")
            .set(c"bytea_output", "hex")
            .set(c"array_nulls", "on")
            .set(c"quote_all_identifiers", "off")
            .set(c"lc_monetary", "C")
            .set(c"xmloption", "content")
            .set(c"search_path", "pg_catalog")
    }

    /// A search path that no other user can put objects into; names of types are then the same text in every session.
    #[must_use]
    pub fn safe_search_path(self) -> Self {
        self.set(c"search_path", "pg_catalog, pg_temp").set(c"quote_all_identifiers", "off")
    }
}

impl Drop for GucNest {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: closes the level that `new` opened; on an error PostgreSQL has closed it or will.
            unsafe { pg_sys::AtEOXact_GUC(true, self.level) }
        }
    }
}
