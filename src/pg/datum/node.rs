//! A type as a tree of what is needed to read and rebuild its values.

use std::cell::RefCell;

use archive_core::schema::{Attribute, PgType, TableSchema};
use pgrx::pg_sys;

use super::label::Labels;
use super::type_io::TypeIo;
use crate::pg::columns;
use crate::pg::encoding::Encoding;

/// One type: that of a column, of an element, of an attribute.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) pg_type: PgType,
    pub(super) io: TypeIo,
    pub(super) encoding: Encoding,
    pub(super) shape: Shape,
    /// Whether archived OIDs are of this database.
    pub(super) same_database: bool,
    /// A type of an extension, which may print less than it holds.
    pub(super) text_may_mislead: bool,
    /// Whether values hold OIDs, of enum labels, roles, relations: their text changes when something is renamed.
    pub(super) holds_oids: bool,
    /// Memory for what is printed, kept from value to value.
    pub(super) printed: RefCell<Vec<u8>>,
}

/// What a type is made of.
#[derive(Debug)]
pub(super) enum Shape {
    Scalar,
    Enum(Labels),
    Array(Box<Node>),
    Composite(RowType),
}

/// A composite type as it is now.
#[derive(Debug)]
pub(super) struct RowType {
    /// A copy of ours in the memory context that was current.
    pub(super) tupdesc: pg_sys::TupleDesc,
    /// For each archived attribute its index in the type; `None` when the type lost it.
    pub(super) attributes: Vec<(Option<usize>, Option<Node>)>,
}

/// Where archived values come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin<'a> {
    /// From a table of this database.
    Live,
    /// From an archive.
    Archive { schema: &'a TableSchema, same_database: bool },
}

impl Origin<'_> {
    fn same_database(self) -> bool {
        match self {
            Self::Live => true,
            Self::Archive { same_database, .. } => same_database,
        }
    }
}

impl Node {
    /// The tree of type `oid`, whose archived form is `pg_type`. The current memory context must outlive it.
    pub(super) fn new(oid: pg_sys::Oid, pg_type: &PgType, encoding: Encoding, origin: Origin<'_>) -> Self {
        // SAFETY: raises an error when types nest too deeply.
        unsafe { pg_sys::check_stack_depth() };
        // SAFETY: catalog lookups of a type in use.
        let base = unsafe { pg_sys::getBaseType(oid) };
        let shape = match pg_type {
            PgType::Enum => Shape::Enum(match origin {
                Origin::Live => Labels::default(),
                Origin::Archive { schema, same_database } => Labels::archived(base, &schema.enums, same_database),
            }),
            PgType::Array(element) => {
                // SAFETY: as above; the type is an array.
                let element_oid = unsafe { pg_sys::get_element_type(base) };
                Shape::Array(Box::new(Node::new(element_oid, element, encoding, origin)))
            }
            PgType::Composite(attributes) => Shape::Composite(RowType::new(base, attributes, encoding, origin)),
            _ => Shape::Scalar,
        };
        Self {
            pg_type: pg_type.clone(),
            io: TypeIo::of(oid),
            encoding,
            shape,
            same_database: origin.same_database(),
            holds_oids: holds_oids(base),
            printed: RefCell::default(),
            text_may_mislead: *pg_type == PgType::Other && !PgType::is_built_in(base.to_u32()) && !is_range(base),
        }
    }

    /// Whether the type, or one within, is one of which this holds.
    pub(super) fn any(&self, holds: &impl Fn(&Node) -> bool) -> bool {
        let within = match &self.shape {
            Shape::Array(element) => element.any(holds),
            Shape::Composite(row) => {
                row.attributes.iter().filter_map(|(_, node)| node.as_ref()).any(|node| node.any(holds))
            }
            Shape::Scalar | Shape::Enum(_) => false,
        };
        within || holds(self)
    }

    /// Whether values are made by an input function, which may refuse them.
    pub(super) fn is_parsed(&self) -> bool {
        matches!(self.pg_type, PgType::Other | PgType::Jsonb | PgType::Reg)
    }

    /// Whether the text of a value may mean something else under other settings: ranges over a type of a user's own.
    pub(super) fn depends_on_settings(&self) -> bool {
        self.pg_type == PgType::Other && !PgType::is_built_in(self.io.oid.to_u32()) && is_range(self.io.oid)
    }
}

const ACLITEM: u32 = 1033;

/// Whether values of a type hold OIDs.
fn holds_oids(oid: pg_sys::Oid) -> bool {
    let (base, kind, element) = columns::anatomy(oid, &mut -1);
    match kind {
        b'e' => true,
        b'c' => columns::attributes_of(base).iter().any(|attribute| holds_oids(attribute.type_oid)),
        // SAFETY: catalog lookups, of a range and a multirange.
        b'r' => holds_oids(unsafe { pg_sys::get_range_subtype(base) }),
        // SAFETY: as above.
        b'm' => holds_oids(unsafe { pg_sys::get_range_subtype(pg_sys::get_multirange_range(base)) }),
        _ if element != pg_sys::InvalidOid => holds_oids(element),
        _ => base.to_u32() == ACLITEM || PgType::from_oid(base.to_u32(), -1) == Some(PgType::Reg),
    }
}

fn is_range(oid: pg_sys::Oid) -> bool {
    // SAFETY: catalog lookups of a type in use.
    let kind = unsafe { pg_sys::get_typtype(pg_sys::getBaseType(oid)) } as u8;
    kind == b'r' || kind == b'm'
}

impl RowType {
    fn new(oid: pg_sys::Oid, archived: &[Attribute], encoding: Encoding, origin: Origin<'_>) -> Self {
        // SAFETY: a composite type; the copy needs no reference count.
        let tupdesc = unsafe { pg_sys::lookup_rowtype_tupdesc_copy(oid, -1) };
        let current = columns::of_tupdesc(tupdesc);
        let find = |attribute: &Attribute| {
            let by_number = || current.iter().find(|column| column.index as i32 + 1 == attribute.id);
            let by_name = || current.iter().find(|column| column.name == attribute.name);
            if origin.same_database() { by_number() } else { by_name().or_else(by_number) }
        };
        let attributes = archived.iter().map(|attribute| match find(attribute) {
            Some(column) => {
                let same = columns::pg_type(column).is_ok_and(|now| now == attribute.pg_type);
                let node = same.then(|| Node::new(column.type_oid, &attribute.pg_type, encoding, origin));
                (Some(column.index), node)
            }
            None => (None, None),
        });
        Self { tupdesc, attributes: attributes.collect() }
    }
}
