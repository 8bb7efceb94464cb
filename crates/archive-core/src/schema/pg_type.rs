//! The PostgreSQL types that can be archived.

use serde::{Deserialize, Serialize};

/// A PostgreSQL type with the modifiers that decide how it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PgType {
    /// `boolean`
    Bool,
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `real`
    Float4,
    /// `double precision`
    Float8,
    /// `numeric(precision, scale)`; PostgreSQL 15 allows a negative scale and one above the precision.
    Numeric {
        /// Total number of decimal digits.
        precision: u16,
        /// Digits after the decimal point.
        scale: i16,
    },
    /// `text`
    Text,
    /// `character varying`
    Varchar,
    /// `character`, blank padded
    Bpchar,
    /// `bytea`
    Bytea,
    /// `date`
    Date,
    /// `time without time zone`
    Time,
    /// `timestamp without time zone`
    Timestamp,
    /// `timestamp with time zone`
    TimestampTz,
    /// `uuid`
    Uuid,
    /// `json`
    Json,
    /// `jsonb`
    Jsonb,
    /// Any enum type; stored by label. What the labels stood for is in [`super::TableSchema::enums`].
    Enum,
    /// `numeric` without a precision; stored as text, for no fixed scale holds it.
    #[serde(rename = "unbounded_numeric")]
    UnboundedNumeric,
    /// `interval`: months, days and microseconds apart.
    Interval,
    /// `money`, in the smallest unit of the currency.
    Money,
    /// `oid`, `xid`, `cid`: unsigned 32-bit numbers.
    Oid,
    /// `regclass`, `regtype` and their like: an OID of this database, with the name that stands for it elsewhere.
    Reg,
    /// `xml`, stored as it is.
    Xml,
    /// Any other type, as the text that its output function prints.
    Other,
    /// A type whose values PostgreSQL cannot read from text: its bytes as they are in memory.
    Opaque,
    /// A composite type; an array of attributes in the order of the type.
    Composite(Vec<Attribute>),
    /// An array.
    Array(Box<PgType>),
}

/// An attribute of a composite type.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attribute {
    /// Its attribute number, stable over renames.
    pub id: i32,
    /// Its name.
    pub name: String,
    /// Its type.
    pub pg_type: PgType,
}

/// (scalar type OID, array type OID, type): PostgreSQL's built-in OIDs never change.
const OIDS: &[(u32, u32, PgType)] = &[
    (16, 1000, PgType::Bool),
    (17, 1001, PgType::Bytea),
    (20, 1016, PgType::Int8),
    (21, 1005, PgType::Int2),
    (23, 1007, PgType::Int4),
    (25, 1009, PgType::Text),
    (114, 199, PgType::Json),
    (700, 1021, PgType::Float4),
    (701, 1022, PgType::Float8),
    (1042, 1014, PgType::Bpchar),
    (1043, 1015, PgType::Varchar),
    (1082, 1182, PgType::Date),
    (1083, 1183, PgType::Time),
    (1114, 1115, PgType::Timestamp),
    (1184, 1185, PgType::TimestampTz),
    (2950, 2951, PgType::Uuid),
    (3802, 3807, PgType::Jsonb),
    (142, 143, PgType::Xml),
    (1186, 1187, PgType::Interval),
    (790, 791, PgType::Money),
    (26, 1028, PgType::Oid),
    (28, 1011, PgType::Oid),
    (29, 1012, PgType::Oid),
    // regproc, regprocedure, regoper, regoperator, regclass, regtype, regrole, regnamespace, regconfig, regdictionary,
    // regcollation
    (24, 1008, PgType::Reg),
    (2202, 2207, PgType::Reg),
    (2203, 2208, PgType::Reg),
    (2204, 2209, PgType::Reg),
    (2205, 2210, PgType::Reg),
    (2206, 2211, PgType::Reg),
    (4096, 4097, PgType::Reg),
    (4089, 4090, PgType::Reg),
    (3734, 3735, PgType::Reg),
    (3769, 3770, PgType::Reg),
    (4191, 4192, PgType::Reg),
    // pg_node_tree holds text that its input function refuses.
    (194, 0, PgType::Xml),
    // gtsvector, pg_ndistinct, pg_dependencies, pg_mcv_list, pg_brin_bloom_summary, pg_brin_minmax_multi_summary
    (3642, 3644, PgType::Opaque),
    (3361, 0, PgType::Opaque),
    (3402, 0, PgType::Opaque),
    (5017, 0, PgType::Opaque),
    (4600, 0, PgType::Opaque),
    (4601, 0, PgType::Opaque),
    // int2vector and oidvector are arrays of a kind of their own.
    (22, 1006, PgType::Other),
    (30, 1013, PgType::Other),
];
const NUMERIC: u32 = 1700;
const NUMERIC_ARRAY: u32 = 1231;
/// First OID that a user's object may have: types below are PostgreSQL's own.
const FIRST_USER_OID: u32 = 16_384;
/// PostgreSQL adds the size of a varlena header to the type modifier.
const VARHDRSZ: i32 = 4;

impl PgType {
    /// The type of a built-in OID, or of its array OID; `None` for types that only the catalog knows: enums, composites,
    /// domains, arrays of these, and everything that is archived as text.
    pub fn from_oid(oid: u32, typmod: i32) -> Option<PgType> {
        match oid {
            0 => None,
            NUMERIC => Some(Self::numeric(typmod)),
            NUMERIC_ARRAY => Some(Self::array(Self::numeric(typmod))),
            _ => OIDS.iter().find_map(|(scalar, array, pg_type)| match oid {
                oid if oid == *scalar => Some(pg_type.clone()),
                oid if oid == *array => Some(Self::array(pg_type.clone())),
                _ => None,
            }),
        }
    }

    /// An array of `element`.
    pub fn array(element: PgType) -> PgType {
        PgType::Array(Box::new(element))
    }

    /// Whether the OID is that of a type of PostgreSQL's own.
    pub fn is_built_in(oid: u32) -> bool {
        oid < FIRST_USER_OID
    }

    /// A numeric from its type modifier; one without precision has no fixed representation.
    fn numeric(typmod: i32) -> PgType {
        let modifier = || {
            let packed = typmod.checked_sub(VARHDRSZ).filter(|packed| *packed >= 0)?;
            let precision = u16::try_from((packed >> 16) & 0xffff).ok()?;
            // Eleven bits, sign extended, as numeric_typmod_scale() does.
            let scale = i16::try_from(((packed & 0x7ff) ^ 1024) - 1024).ok()?;
            Some((precision, scale))
        };
        modifier().map_or(PgType::UnboundedNumeric, |(precision, scale)| PgType::Numeric { precision, scale })
    }

    /// Whether the varlena's payload is the text itself, which no input function need see.
    pub fn is_plain_text(&self) -> bool {
        matches!(self, PgType::Text | PgType::Varchar | PgType::Bpchar | PgType::Json | PgType::Xml)
    }

    /// Whether values, or parts of them, are archived as their bytes in PostgreSQL's memory.
    pub fn is_image(&self) -> bool {
        match self {
            Self::Opaque => true,
            Self::Array(element) => element.is_image(),
            Self::Composite(attributes) => attributes.iter().any(|attribute| attribute.pg_type.is_image()),
            _ => false,
        }
    }

    /// Whether a value is one number, one text or the like, so that Parquet's statistics count values as rows.
    pub fn is_scalar(&self) -> bool {
        !matches!(self, PgType::Array(_) | PgType::Composite(_) | PgType::Interval | PgType::Reg)
    }

    /// Whether ranges of values are worth keeping: the order of json, of arrays and of composites helps no query.
    pub fn has_useful_order(&self) -> bool {
        !matches!(
            self,
            PgType::Json | PgType::Jsonb | PgType::Xml | PgType::Opaque | PgType::Composite(_) | PgType::Array(_)
        )
    }

    /// The built-in scalar types that have a representation of their own.
    pub fn all_scalars() -> impl Iterator<Item = PgType> {
        OIDS.iter().map(|(_, _, pg_type)| pg_type.clone())
    }

    /// The SQL name of the type, for messages and documentation.
    pub fn sql_name(&self) -> String {
        let name = match self {
            PgType::Bool => "boolean",
            PgType::Int2 => "smallint",
            PgType::Int4 => "integer",
            PgType::Int8 => "bigint",
            PgType::Float4 => "real",
            PgType::Float8 => "double precision",
            PgType::Numeric { precision, scale } => return format!("numeric({precision},{scale})"),
            PgType::Text => "text",
            PgType::Varchar => "character varying",
            PgType::Bpchar => "character",
            PgType::Bytea => "bytea",
            PgType::Date => "date",
            PgType::Time => "time without time zone",
            PgType::Timestamp => "timestamp without time zone",
            PgType::TimestampTz => "timestamp with time zone",
            PgType::Uuid => "uuid",
            PgType::Json => "json",
            PgType::Jsonb => "jsonb",
            PgType::Enum => "enum",
            PgType::UnboundedNumeric => "numeric",
            PgType::Interval => "interval",
            PgType::Money => "money",
            PgType::Oid => "oid",
            PgType::Reg => "regclass",
            PgType::Xml => "xml",
            PgType::Other => "any other type",
            PgType::Opaque => "a type without text input",
            PgType::Composite(attributes) => {
                let parts: Vec<_> = attributes.iter().map(|a| format!("{} {}", a.name, a.pg_type.sql_name())).collect();
                return format!("({})", parts.join(", "));
            }
            PgType::Array(element) => return format!("{}[]", element.sql_name()),
        };
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oids_of_scalars_and_arrays() {
        assert_eq!(PgType::from_oid(23, -1), Some(PgType::Int4));
        assert_eq!(PgType::from_oid(2951, -1), Some(PgType::array(PgType::Uuid)));
        assert_eq!(PgType::from_oid(600, -1), None);
        assert_eq!(PgType::from_oid(0, -1), None);
        assert_eq!(PgType::from_oid(2210, -1), Some(PgType::array(PgType::Reg)));
    }

    #[test]
    fn numerics_take_precision_and_scale_from_the_modifier() {
        let typmod = |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7ff)) + VARHDRSZ;
        let numeric = |precision, scale| Some(PgType::Numeric { precision, scale });
        assert_eq!(PgType::from_oid(1700, -1), Some(PgType::UnboundedNumeric));
        assert_eq!(PgType::from_oid(1231, -1), Some(PgType::array(PgType::UnboundedNumeric)));
        assert_eq!(PgType::from_oid(1700, typmod(12, 2)), numeric(12, 2));
        assert_eq!(PgType::from_oid(1700, typmod(5, -3)), numeric(5, -3));
        assert_eq!(PgType::from_oid(1700, typmod(1000, 1000)), numeric(1000, 1000));
    }

    #[test]
    fn json_form_is_stable() {
        let json = serde_json::to_string(&PgType::array(PgType::Numeric { precision: 9, scale: 2 })).unwrap();
        assert_eq!(json, r#"{"array":{"numeric":{"precision":9,"scale":2}}}"#);
        assert_eq!(serde_json::to_string(&PgType::TimestampTz).unwrap(), r#""timestamptz""#);
        assert_eq!(serde_json::to_string(&PgType::UnboundedNumeric).unwrap(), r#""unbounded_numeric""#);
        let attribute = Attribute { id: 2, name: "x".into(), pg_type: PgType::Bool };
        let json = serde_json::to_string(&PgType::Composite(vec![attribute])).unwrap();
        assert_eq!(json, r#"{"composite":[{"id":2,"name":"x","pg_type":"bool"}]}"#);
    }
}
