//! An argument of any type that names a row by its key, and a result of type `jsonb`.

use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::nullable::Nullable;
use pgrx::prelude::*;
use pgrx::{impl_sql_translatable, pg_sys};

use super::datum;
use super::guc::GucNest;

/// A key as it was given: one value of any type, or a JSON object with a value for each column. A literal without type is text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// A value, as its type prints it.
    Value(String),
    /// The text of a json or jsonb.
    Json(String),
}

impl_sql_translatable!(Key, "anycompatible");

impl FromDatum for Key {
    const GET_TYPOID: bool = true;

    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, typoid: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        let _settings = GucNest::lossless_text();
        let text = datum::output_text(typoid, datum).unwrap_or_default();
        let is_json = [pg_sys::JSONOID, pg_sys::JSONBOID].contains(&typoid);
        Some(if is_json { Self::Json(text) } else { Self::Value(text) })
    }
}

// SAFETY: delegates to FromDatum, which is given the type of the argument.
unsafe impl<'fcx> ArgAbi<'fcx> for Key {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the function is strict in this argument.
        unsafe { arg.unbox_arg_using_from_datum() }
            .unwrap_or_else(|| unreachable!("a NULL argument reaches only Option"))
    }

    unsafe fn unbox_nullable_arg(arg: Arg<'_, 'fcx>) -> Nullable<Self> {
        // SAFETY: as above.
        unsafe { arg.unbox_arg_using_from_datum().into() }
    }
}

/// A `jsonb`, as PostgreSQL printed it: numbers keep all their digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonbText(pub String);

impl_sql_translatable!(JsonbText, "jsonb");

// SAFETY: a jsonb is returned as the datum that its input function made.
unsafe impl BoxRet for JsonbText {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        match datum::input_text(pg_sys::JSONBOID, &self.0) {
            // SAFETY: the datum is of the declared type.
            Some(value) => unsafe { fcinfo.return_raw_datum(value) },
            None => fcinfo.return_null(),
        }
    }
}
