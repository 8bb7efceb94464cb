//! Length, by-value flag, alignment and I/O functions of a type.

use std::cell::Cell;
use std::ffi::{CStr, c_char};

use pgrx::pg_sys;

/// Capacity of the buffer that is kept between values.
const KEPT: usize = 64 << 10;

thread_local! {
    /// Where a text gets its NUL byte, so that not every one needs an allocation.
    static TERMINATED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// How values of a type lie in memory, and its I/O functions. Those of a domain are its base type's: a value that is
/// stored is not checked again.
#[derive(Debug, Clone, Copy)]
pub(super) struct TypeIo {
    /// The type itself, which may be a domain.
    pub(super) oid: pg_sys::Oid,
    pub(super) len: i16,
    pub(super) by_value: bool,
    pub(super) align: c_char,
    input: *mut pg_sys::FmgrInfo,
    output: *mut pg_sys::FmgrInfo,
    io_param: pg_sys::Oid,
}

impl TypeIo {
    /// Looks the type up. What the functions remember between calls lives in the current memory context, which must
    /// outlive the result.
    pub(super) fn of(oid: pg_sys::Oid) -> Self {
        let (mut len, mut by_value, mut align) = (0, false, 0);
        let (mut input, mut output, mut io_param) = (pg_sys::InvalidOid, pg_sys::InvalidOid, pg_sys::InvalidOid);
        let mut is_varlena = false;
        // SAFETY: catalog lookups of a type that a column uses; the out pointers are valid.
        unsafe {
            let base = pg_sys::getBaseType(oid);
            pg_sys::get_typlenbyvalalign(base, &mut len, &mut by_value, &mut align);
            pg_sys::getTypeInputInfo(base, &mut input, &mut io_param);
            pg_sys::getTypeOutputInfo(base, &mut output, &mut is_varlena);
        }
        Self { oid, len, by_value, align, input: function(input), output: function(output), io_param }
    }

    /// What the output function prints, in the encoding of the database, in the current memory context.
    ///
    /// # Safety
    /// `datum` is a non-null value of the type. `'r` ends before the current memory context is reset.
    pub(super) unsafe fn print<'r>(&self, datum: pg_sys::Datum) -> &'r [u8] {
        // SAFETY: by the caller's promise; output functions return a NUL-terminated string.
        unsafe { CStr::from_ptr(pg_sys::OutputFunctionCall(self.output, datum)).to_bytes() }
    }

    /// The bytes of a value in memory: the payload of a varlena, else as many bytes as the type has.
    ///
    /// # Safety
    /// As for [`Self::print`].
    pub(super) unsafe fn image<'r>(&self, datum: pg_sys::Datum) -> &'r [u8] {
        // SAFETY: by the caller's promise. A by-value datum is copied into the current memory context.
        unsafe {
            match usize::try_from(self.len) {
                Ok(len) if self.by_value => {
                    let copy = pg_sys::palloc(size_of::<usize>()).cast::<usize>();
                    copy.write(datum.value().to_le());
                    std::slice::from_raw_parts(copy.cast(), len.min(size_of::<usize>()))
                }
                Ok(len) => std::slice::from_raw_parts(datum.cast_mut_ptr(), len),
                Err(_) if self.is_c_string() => CStr::from_ptr(datum.cast_mut_ptr()).to_bytes_with_nul(),
                Err(_) => crate::pg::varlena::payload(datum),
            }
        }
    }

    fn is_c_string(&self) -> bool {
        self.len == -2
    }

    /// The value that [`Self::image`] gave the bytes of; `None` when they are too few.
    pub(super) fn of_image(self, image: &[u8]) -> Option<pg_sys::Datum> {
        match usize::try_from(self.len) {
            Ok(len) if len != image.len() => None,
            Ok(_) if self.by_value => {
                let mut bytes = [0; size_of::<usize>()];
                bytes.get_mut(..image.len())?.copy_from_slice(image);
                Some(pg_sys::Datum::from(usize::from_le_bytes(bytes)))
            }
            Ok(_) => Some(super::build::palloc_copy(image)),
            Err(_) if self.is_c_string() => image.ends_with(&[0]).then(|| super::build::palloc_copy(image)),
            Err(_) => Some(super::build::palloc_varlena(image)),
        }
    }

    /// The value that the input function reads, in the current memory context; a text that it refuses raises
    /// PostgreSQL's error. `None` when the text holds a NUL byte.
    pub(super) fn parse(&self, text: &[u8]) -> Option<pg_sys::Datum> {
        if text.contains(&0) {
            return None;
        }
        // Taken out meanwhile: a function of the type may read values itself.
        let mut terminated = TERMINATED.take();
        terminated.clear();
        terminated.extend_from_slice(text);
        terminated.push(0);
        // SAFETY: the input function of the type, given a NUL-terminated string that nobody changes meanwhile.
        let datum = unsafe { pg_sys::InputFunctionCall(self.input, terminated.as_mut_ptr().cast(), self.io_param, -1) };
        if terminated.capacity() <= KEPT {
            TERMINATED.set(terminated);
        }
        Some(datum)
    }
}

fn function(oid: pg_sys::Oid) -> *mut pg_sys::FmgrInfo {
    // SAFETY: a function of the catalog, looked up into memory of its struct's size.
    unsafe {
        let info = pg_sys::palloc0(size_of::<pg_sys::FmgrInfo>()).cast::<pg_sys::FmgrInfo>();
        pg_sys::fmgr_info(oid, info);
        info
    }
}
