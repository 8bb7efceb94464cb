//! Text in the database's encoding as UTF-8 and back.
//!
//! Parquet text is UTF-8. Every server encoding is a superset of ASCII; what else a conversion changes is found by
//! converting back, and such a text is then kept as bytes ([`archive_core::codec::sidecar_text`]).

use std::borrow::Cow;

use pgrx::pg_sys;

/// How the database's encoding relates to UTF-8.
#[derive(Debug, Clone, Copy)]
pub enum Encoding {
    /// UTF-8, or `SQL_ASCII`, whose bytes are taken for what they are.
    Utf8,
    /// Another one, with the conversion functions to and from UTF-8; they are invalid where PostgreSQL has none.
    Other {
        /// The encoding's number.
        code: i32,
        /// Conversion function to UTF-8.
        to_utf8: pg_sys::Oid,
        /// Conversion function from UTF-8.
        from_utf8: pg_sys::Oid,
    },
}

const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;
const SQL_ASCII: i32 = pg_sys::pg_enc::PG_SQL_ASCII as i32;
/// Bytes converted in one call: PostgreSQL counts in 32 bits and lets a text grow to four times its size.
const CHUNK: usize = 64 << 20;
/// `MAX_CONVERSION_GROWTH`
const GROWTH: usize = 4;

impl Encoding {
    /// The encoding of this database.
    pub fn of_database() -> Self {
        // SAFETY: a constant of the backend, then lookups in pg_conversion within a transaction.
        unsafe {
            match pg_sys::GetDatabaseEncoding() {
                UTF8 | SQL_ASCII => Self::Utf8,
                code => Self::Other {
                    code,
                    to_utf8: pg_sys::FindDefaultConversionProc(code, UTF8),
                    from_utf8: pg_sys::FindDefaultConversionProc(UTF8, code),
                },
            }
        }
    }

    /// Whether Rust's text can be handed over as it is.
    pub fn is_utf8() -> bool {
        // SAFETY: a constant of the backend.
        matches!(unsafe { pg_sys::GetDatabaseEncoding() }, UTF8 | SQL_ASCII)
    }

    /// Whether text sorts bytewise here as its UTF-8 does.
    pub fn keeps_order(self) -> bool {
        matches!(self, Self::Utf8)
    }

    /// The text in UTF-8, when that can be turned back into just these bytes.
    pub fn to_utf8(self, bytes: &[u8]) -> Option<Cow<'_, str>> {
        match self {
            Self::Utf8 => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Self::Other { .. } if bytes.is_ascii() => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Self::Other { code, to_utf8, from_utf8 } => {
                let utf8 = convert(to_utf8, code, UTF8, bytes)?;
                let back = convert(from_utf8, UTF8, code, &utf8)?;
                (back == bytes).then(|| String::from_utf8(utf8).ok()).flatten().map(Cow::Owned)
            }
        }
    }

    /// A text in the encoding of the database; `None` when it has characters that the encoding lacks.
    pub fn encode(self, text: &str) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Other { code, from_utf8, .. } if !text.is_ascii() => {
                convert(from_utf8, UTF8, code, text.as_bytes()).map(Cow::Owned)
            }
            _ => Some(Cow::Borrowed(text.as_bytes())),
        }
    }
}

/// All of `bytes` converted; `None` when that is not possible.
fn convert(procedure: pg_sys::Oid, from: i32, to: i32, mut bytes: &[u8]) -> Option<Vec<u8>> {
    if procedure == pg_sys::InvalidOid {
        return None;
    }
    let mut converted = Vec::with_capacity(bytes.len() * 2);
    let mut target = vec![0u8; bytes.len().min(CHUNK) * GROWTH + 1];
    while !bytes.is_empty() {
        let length = bytes.len().min(CHUNK);
        // SAFETY: the source has `length` bytes, and the target has room for the most they can become and a NUL. Without
        // errors the function stops before what it cannot convert.
        let done = unsafe {
            pg_sys::pg_do_encoding_conversion_buf(
                procedure,
                from,
                to,
                bytes.as_ptr().cast_mut(),
                length as i32,
                target.as_mut_ptr(),
                target.len() as i32,
                true,
            )
        };
        let done = usize::try_from(done).ok().filter(|done| *done > 0)?;
        bytes = bytes.get(done..)?;
        converted.extend(target.iter().take_while(|byte| **byte != 0));
    }
    Some(converted)
}
