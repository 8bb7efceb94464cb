//! Values of variable length: their headers are looked at here, and PostgreSQL is asked only for those that are compressed or elsewhere.

use pgrx::pg_sys;

/// The payload of a varlena, detoasted in the current memory context where needed.
///
/// # Safety
/// `datum` points to a varlena that stays valid for `'r`, as does the current memory context's content.
#[inline(always)]
pub(super) unsafe fn payload<'r>(datum: pg_sys::Datum) -> &'r [u8] {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut value: *mut pg_sys::varlena = datum.cast_mut_ptr();
        if !is_plain(value) {
            value = pg_sys::pg_detoast_datum_packed(value);
        }
        std::slice::from_raw_parts(pgrx::vardata_any(value).cast(), pgrx::varsize_any_exhdr(value))
    }
}

/// Bytes of the payload once it is detoasted.
///
/// # Safety
/// `datum` points to a varlena.
#[inline(always)]
pub(super) unsafe fn raw_size(datum: pg_sys::Datum) -> usize {
    // SAFETY: by the caller's promise.
    unsafe {
        let value: *mut pg_sys::varlena = datum.cast_mut_ptr();
        if is_plain(value) {
            return pgrx::varsize_any_exhdr(value);
        }
        pg_sys::toast_raw_datum_size(datum).saturating_sub(size_of::<i32>())
    }
}

/// Bytes of the value with its header, where it is neither compressed nor elsewhere.
///
/// # Safety
/// `datum` points to a varlena.
pub(super) unsafe fn plain_size(datum: pg_sys::Datum) -> Option<usize> {
    // SAFETY: by the caller's promise.
    unsafe {
        let value: *mut pg_sys::varlena = datum.cast_mut_ptr();
        is_plain(value).then(|| pgrx::varsize_any(value))
    }
}

/// Whether the payload follows the header as it is.
///
/// # Safety
/// `value` points to a varlena.
#[inline(always)]
unsafe fn is_plain(value: *const pg_sys::varlena) -> bool {
    // SAFETY: by the caller's promise.
    unsafe { pgrx::varatt_is_4b_u(value) || (pgrx::varatt_is_1b(value) && !pgrx::varatt_is_1b_e(value)) }
}
