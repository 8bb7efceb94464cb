//! Values of any type outside a row: constants of a query, bounds of an object.

use std::cmp::Ordering;

use archive_core::codec::Value;
use pgrx::pg_sys;

use super::datum;
use super::encoding::Encoding;

/// A non-null value. What it points to lives in the memory context in which it was made.
#[derive(Debug, Clone, Copy)]
pub struct Constant {
    type_oid: pg_sys::Oid,
    datum: pg_sys::Datum,
}

impl Constant {
    pub(super) fn new(type_oid: pg_sys::Oid, datum: pg_sys::Datum) -> Self {
        Self { type_oid, datum }
    }

    pub(super) fn datum(&self) -> pg_sys::Datum {
        self.datum
    }

    /// A value of a type that is an integer inside: date, timestamp, timestamptz.
    pub fn from_integer(type_oid: pg_sys::Oid, value: i64) -> Self {
        let datum = match type_oid {
            pg_sys::DATEOID => pg_sys::Datum::from(value as i32),
            _ => pg_sys::Datum::from(value),
        };
        Self { type_oid, datum }
    }

    /// The value of text that the type's output function printed, in the current memory context. `None` when the type
    /// does not know it any more (a renamed enum label).
    pub fn parse(type_oid: pg_sys::Oid, text: &str) -> Option<Self> {
        // SAFETY: catalog lookup of an existing type. A domain's constraints are not checked again.
        let type_oid = unsafe { pg_sys::getBaseType(type_oid) };
        let datum = if is_enum(type_oid) { enum_label(type_oid, text)? } else { datum::input_text(type_oid, text)? };
        Some(Self { type_oid, datum })
    }

    /// Its type.
    pub fn type_oid(&self) -> pg_sys::Oid {
        self.type_oid
    }

    /// The integer inside a date, timestamp or timestamptz.
    pub fn integer(&self) -> i64 {
        match self.type_oid {
            pg_sys::DATEOID => (self.datum.value() as i32).into(),
            _ => self.datum.value() as i64,
        }
    }

    /// The value as the codec knows it; `None` for types it does not.
    pub fn value(&self) -> Option<Value<'_>> {
        datum::constant(self.type_oid, self.datum)
    }

    /// The label of an enum value.
    pub fn enum_label(&self) -> Option<String> {
        is_enum(self.type_oid).then(|| datum::output_text(self.type_oid, self.datum)).flatten()
    }

    /// The elements of an array, NULLs left out, in the current memory context; `None` when it is not an array.
    pub fn elements(&self) -> Option<Vec<Constant>> {
        // SAFETY: the constant is a non-null value of its type; catalog lookup of that type.
        unsafe {
            let elements = elements_of(self.type_oid, self.datum)?;
            let element = pg_sys::get_base_element_type(self.type_oid);
            Some(elements.into_iter().map(|datum| Constant::new(element, datum)).collect())
        }
    }
}

/// The elements of an array, NULLs left out, in the current memory context; `None` when the type is not an array's.
///
/// # Safety
/// `datum` is a non-null value of the type.
pub(super) unsafe fn elements_of(type_oid: pg_sys::Oid, datum: pg_sys::Datum) -> Option<Vec<pg_sys::Datum>> {
    // SAFETY: catalog lookups, then deconstruct_array on a detoasted array of that element type.
    unsafe {
        let element = pg_sys::get_base_element_type(type_oid);
        if element == pg_sys::InvalidOid {
            return None;
        }
        let (mut len, mut by_value, mut align) = (0i16, false, 0);
        pg_sys::get_typlenbyvalalign(element, &mut len, &mut by_value, &mut align);
        let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        let len = len.into();
        pg_sys::deconstruct_array(array, element, len, by_value, align, &mut values, &mut nulls, &mut count);
        let present = (0..count as usize).filter(|i| !*nulls.add(*i));
        Some(present.map(|i| *values.add(i)).collect())
    }
}

fn is_enum(type_oid: pg_sys::Oid) -> bool {
    // SAFETY: syscache lookup.
    unsafe { pg_sys::get_typtype(type_oid) == pg_sys::TYPTYPE_ENUM as std::ffi::c_char }
}

/// The label may have been renamed since.
fn enum_label(type_oid: pg_sys::Oid, label: &str) -> Option<pg_sys::Datum> {
    let label = Encoding::of_database().encode(label)?;
    datum::find_label(type_oid, &label).map(pg_sys::Datum::from)
}

/// The order of a btree operator family between two of its types.
#[derive(Debug)]
pub struct Comparator {
    function: *mut pg_sys::FmgrInfo,
    collation: pg_sys::Oid,
}

/// BTORDER_PROC: the support function that returns -1, 0 or 1.
const ORDER_PROC: i16 = 1;

impl Comparator {
    /// The order of `left` to `right`, in memory of the current context, which must outlive it.
    pub fn new(family: pg_sys::Oid, left: pg_sys::Oid, right: pg_sys::Oid, collation: pg_sys::Oid) -> Option<Self> {
        // SAFETY: catalog lookup, then a function of the catalog looked up into memory of its struct's size.
        unsafe {
            let procedure = pg_sys::get_opfamily_proc(family, left, right, ORDER_PROC);
            if procedure == pg_sys::InvalidOid {
                return None;
            }
            let function = pg_sys::palloc0(size_of::<pg_sys::FmgrInfo>()).cast::<pg_sys::FmgrInfo>();
            pg_sys::fmgr_info_cxt(procedure, function, pg_sys::CurrentMemoryContext);
            Some(Self { function, collation })
        }
    }

    /// How `left` stands to `right`; their types are those the comparator was made for.
    pub fn compare(&self, left: Constant, right: Constant) -> Ordering {
        // SAFETY: the function compares values of these types; its memory lives as long as the comparator.
        let order = unsafe { pg_sys::FunctionCall2Coll(self.function, self.collation, left.datum, right.datum) };
        (order.value() as i32).cmp(&0)
    }
}

/// The default btree operator family of a type and the type its operators take.
pub fn default_btree(type_oid: pg_sys::Oid) -> Option<(pg_sys::Oid, pg_sys::Oid)> {
    // SAFETY: the type cache entry lives as long as the backend.
    let (family, input) = unsafe {
        let entry = pg_sys::lookup_type_cache(type_oid, pg_sys::TYPECACHE_BTREE_OPFAMILY as i32);
        ((*entry).btree_opf, (*entry).btree_opintype)
    };
    (family != pg_sys::InvalidOid).then_some((family, input))
}

/// Strategy number and argument types of an operator in a family.
pub fn family_member(operator: pg_sys::Oid, family: pg_sys::Oid) -> Option<(i32, pg_sys::Oid, pg_sys::Oid)> {
    let (mut strategy, mut left, mut right) = (0, pg_sys::InvalidOid, pg_sys::InvalidOid);
    // SAFETY: catalog lookups; the second raises an error only for an operator outside the family.
    unsafe {
        if !pg_sys::op_in_opfamily(operator, family) {
            return None;
        }
        pg_sys::get_op_opfamily_properties(operator, family, false, &mut strategy, &mut left, &mut right);
    }
    Some((strategy, left, right))
}

/// Whether equal under the collation means equal bytes.
pub fn is_deterministic(collation: pg_sys::Oid) -> bool {
    // SAFETY: catalog lookup of an existing collation.
    unsafe { pg_sys::get_collation_isdeterministic(collation) }
}

/// A date as timestamptz at midnight of the session's time zone; `None` outside its range.
pub fn date_to_timestamptz(days: i32) -> Option<i64> {
    let mut overflow = 0;
    // SAFETY: plain arithmetic; with an overflow pointer it raises nothing.
    let value = unsafe { pg_sys::date2timestamptz_opt_overflow(days, &mut overflow) };
    (overflow == 0).then_some(value)
}

/// A timestamp as timestamptz in the session's time zone; `None` outside its range.
pub fn timestamp_to_timestamptz(micros: i64) -> Option<i64> {
    let mut overflow = 0;
    // SAFETY: plain arithmetic; with an overflow pointer it raises nothing.
    let value = unsafe { pg_sys::timestamp2timestamptz_opt_overflow(micros, &mut overflow) };
    (overflow == 0).then_some(value)
}
