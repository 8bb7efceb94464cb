//! Settings changed for a scope, and the reserved prefix.

use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::OnceLock;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_guard, pg_sys};

use super::{encoding::Encoding, limited_plans, server_text};
use crate::error::{Error, Result, SqlState};

/// Says why a value is refused.
type Check = fn(&str) -> archive_core::Result<()>;

static CHECKED: OnceLock<(&'static GucSetting<Option<CString>>, Check)> = OnceLock::new();
static FLAG: OnceLock<&'static GucSetting<bool>> = OnceLock::new();

/// Defines the one setting whose text is checked (22023) and on which cached plans depend.
pub fn define_checked_text(
    name: &'static CStr,
    description: &'static CStr,
    setting: &'static GucSetting<Option<CString>>,
    check: Check,
) {
    if CHECKED.set((setting, check)).is_ok() {
        // SAFETY: the hooks are guarded and do what hooks may do.
        unsafe {
            GucRegistry::define_string_guc_with_hooks(
                name,
                description,
                c"",
                setting,
                GucContext::Userset,
                GucFlags::default(),
                Some(check_text),
                Some(assign_text),
                None,
            );
        }
    }
}

/// Defines the one switch on which cached plans depend.
pub fn define_plan_flag(name: &'static CStr, description: &'static CStr, setting: &'static GucSetting<bool>) {
    if FLAG.set(setting).is_ok() {
        // SAFETY: the hook is guarded and does what hooks may do.
        unsafe {
            GucRegistry::define_bool_guc_with_hooks(
                name,
                description,
                c"",
                setting,
                GucContext::Userset,
                GucFlags::default(),
                None,
                Some(assign_flag),
                None,
            );
        }
    }
}

/// May be called outside of a transaction, when the configuration file is read again: nothing is looked up. All that a
/// check sees is ASCII or a name, and names are not looked at.
#[pg_guard]
unsafe extern "C-unwind" fn check_text(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: called by PostgreSQL as a check hook: the value is NULL or a NUL-terminated string.
    unsafe {
        let (Some((_, check)), false) = (CHECKED.get(), (*value).is_null()) else { return true };
        let text = String::from_utf8_lossy(CStr::from_ptr(*value).to_bytes()).into_owned();
        let Err(error) = check(&text) else { return true };
        let error = Error::from(error);
        pg_sys::GUC_check_errcode(error.sqlstate() as i32);
        pg_sys::GUC_check_errmsg_string = reported(error.message());
        pg_sys::GUC_check_errhint_string = error.hint_text().map_or(std::ptr::null_mut(), reported);
        false
    }
}

/// A message about a value, in the current memory context.
fn reported(text: &str) -> *mut c_char {
    let text = if Encoding::is_utf8() { text.to_owned() } else { text.replace(|c: char| !c.is_ascii(), "?") };
    let text = CString::new(text).unwrap_or_default();
    // SAFETY: copies the string.
    unsafe { pg_sys::pstrdup(text.as_ptr()) }
}

#[pg_guard]
unsafe extern "C-unwind" fn assign_text(value: *const c_char, _extra: *mut c_void) {
    // SAFETY: called by PostgreSQL as an assign hook: the value is NULL or a NUL-terminated string.
    let new = unsafe { (!value.is_null()).then(|| CStr::from_ptr(value)) };
    let old = CHECKED.get().and_then(|(setting, _)| setting.get());
    if old.as_deref().unwrap_or_default() != new.unwrap_or_default() {
        limited_plans::forget_plans();
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn assign_flag(value: bool, _extra: *mut c_void) {
    if FLAG.get().is_some_and(|setting| setting.get() != value) {
        limited_plans::forget_plans();
    }
}

/// The value of a text setting as UTF-8; empty when it is not set. Within a transaction.
pub fn text(setting: &GucSetting<Option<CString>>) -> String {
    setting.get().map(|text| server_text::decode(text.to_bytes())).unwrap_or_default()
}

/// The value of any setting; `None` when nobody knows it.
pub fn get(name: &CStr) -> Option<String> {
    // SAFETY: with missing_ok the result is NULL or a string that lives until the setting changes.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        (!value.is_null()).then(|| server_text::of_c_string(value))
    }
}

/// Sets a setting as SET does, or SET LOCAL.
pub fn set(name: &CStr, value: &str, is_local: bool) -> Result<()> {
    let value = server_text::statement(value)?;
    let action = if is_local { pg_sys::GucAction::GUC_ACTION_LOCAL } else { pg_sys::GucAction::GUC_ACTION_SET };
    // SAFETY: both strings outlive the call.
    let done = unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            action,
            true,
            0,
            false,
        )
    };
    if done > 0 { Ok(()) } else { Err(Error::new(SqlState::ERRCODE_INTERNAL_ERROR, "the setting was not changed")) }
}

/// Whether the session asked for every row: `row_security` is off, which fails rather than leave rows out, or this is
/// pg_dump, which also reads in other ways than COPY. Its application name may be another; no search path together with
/// unsynchronised scans is what it always sets.
pub fn wants_every_row() -> bool {
    // SAFETY: backend-local settings; strings are NULL or NUL-terminated.
    unsafe {
        let is = |setting: *const c_char, value: &CStr| !setting.is_null() && CStr::from_ptr(setting) == value;
        !pg_sys::row_security
            || is(pg_sys::application_name, c"pg_dump")
            || (!pg_sys::synchronize_seqscans && is(pg_sys::namespace_search_path, c""))
    }
}

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
