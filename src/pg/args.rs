//! Argument and result types that pgrx has no Rust type for.

use archive_core::lifecycle::Status;
use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::{Datum, UnboxDatum};
use pgrx::nullable::Nullable;
use pgrx::prelude::*;
use pgrx::{impl_sql_translatable, pg_sys};

use super::server_text::{self, ServerText};

const ENUM_OUT: u32 = 3507;

/// A `regclass`: the OID of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Regclass(pub pg_sys::Oid);

/// A `name`: an identifier of at most 63 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(pub String);

/// A `text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(pub String);

/// A `json`, as its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonText(pub String);

/// A `lifecycle_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LifecycleStatus(pub Status);

impl_sql_translatable!(LifecycleStatus, "archive_ext.lifecycle_status");
impl_sql_translatable!(Text, "text");
impl_sql_translatable!(JsonText, "json");
impl_sql_translatable!(Regclass, "regclass");
impl_sql_translatable!(Name, "name");

impl FromDatum for Regclass {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, typoid: pg_sys::Oid) -> Option<Self> {
        // SAFETY: a regclass datum is an oid datum.
        unsafe { pg_sys::Oid::from_polymorphic_datum(datum, is_null, typoid).map(Self) }
    }
}

// SAFETY: a regclass datum is an oid datum.
unsafe impl UnboxDatum for Regclass {
    type As<'src> = Self;

    unsafe fn unbox<'src>(datum: Datum<'src>) -> Self
    where
        Self: 'src,
    {
        // SAFETY: by the caller's promise.
        Self(unsafe { pg_sys::Oid::unbox(datum) })
    }
}

impl IntoDatum for Regclass {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        self.0.into_datum()
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::REGCLASSOID
    }
}

impl FromDatum for Name {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _typoid: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: a name datum points to NAMEDATALEN bytes that hold a NUL-terminated string.
        Some(Self(unsafe { server_text::of_c_string(datum.cast_mut_ptr()) }))
    }
}

// SAFETY: as in `from_polymorphic_datum`.
unsafe impl UnboxDatum for Name {
    type As<'src> = Self;

    unsafe fn unbox<'src>(datum: Datum<'src>) -> Self
    where
        Self: 'src,
    {
        // SAFETY: by the caller's promise, a name datum.
        Self(unsafe { server_text::of_c_string(datum.sans_lifetime().cast_mut_ptr()) })
    }
}

impl FromDatum for LifecycleStatus {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _typoid: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: an enum's datum is the OID of its label, which the output function prints.
        let label = unsafe { server_text::of_c_string(pg_sys::OidOutputFunctionCall(ENUM_OUT.into(), datum)) };
        label.parse().ok().map(Self)
    }
}

impl FromDatum for Text {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, typoid: pg_sys::Oid) -> Option<Self> {
        // SAFETY: a text datum.
        unsafe { ServerText::from_polymorphic_datum(datum, is_null, typoid) }.map(|text| Self(text.0))
    }
}

impl FromDatum for JsonText {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        // SAFETY: a json datum is a text datum.
        unsafe { ServerText::from_polymorphic_datum(datum, is_null, pg_sys::TEXTOID) }.map(|text| Self(text.0))
    }
}

impl IntoDatum for Text {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(server_text::result_datum(self.0))
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::TEXTOID
    }
}

macro_rules! from_datum_argument {
    ($($type:ty),*) => {$(
        // SAFETY: delegates to FromDatum, which matches the declared SQL type.
        unsafe impl<'fcx> ArgAbi<'fcx> for $type {
            unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
                // SAFETY: the function is strict in this argument or wraps it in Option.
                unsafe { arg.unbox_arg_using_from_datum() }
                    .unwrap_or_else(|| unreachable!("a NULL argument reaches only Option"))
            }

            unsafe fn unbox_nullable_arg(arg: Arg<'_, 'fcx>) -> Nullable<Self> {
                // SAFETY: as above.
                unsafe { arg.unbox_arg_using_from_datum().into() }
            }
        }
    )*};
}

from_datum_argument!(Regclass, Name, Text, JsonText, LifecycleStatus);

// SAFETY: a regclass is returned as its oid datum.
unsafe impl BoxRet for Regclass {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: the datum is of the declared type.
        unsafe { fcinfo.return_raw_datum(pg_sys::Datum::from(self.0)) }
    }
}

// SAFETY: a text is returned as a datum of that type, made in the current memory context.
unsafe impl BoxRet for Text {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: the datum is of the declared type.
        unsafe { fcinfo.return_raw_datum(server_text::result_datum(self.0)) }
    }
}
