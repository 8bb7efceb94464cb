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
    /// Any enum type; stored by label.
    Enum,
    /// An array of one of the scalar types.
    Array(Box<PgType>),
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
];
const NUMERIC: u32 = 1700;
const NUMERIC_ARRAY: u32 = 1231;
/// PostgreSQL adds the size of a varlena header to the type modifier.
const VARHDRSZ: i32 = 4;

impl PgType {
    /// The type of a built-in OID, or of its array OID; `None` when it cannot be archived. Enums have OIDs of their
    /// own, so the caller recognises them.
    pub fn from_oid(oid: u32, typmod: i32) -> Option<PgType> {
        match oid {
            NUMERIC => Self::numeric(typmod),
            NUMERIC_ARRAY => Some(Self::array(Self::numeric(typmod)?)),
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

    /// A numeric from its type modifier; one without precision has no fixed representation.
    fn numeric(typmod: i32) -> Option<PgType> {
        let packed = typmod.checked_sub(VARHDRSZ).filter(|packed| *packed >= 0)?;
        let precision = u16::try_from((packed >> 16) & 0xffff).ok()?;
        // Eleven bits, sign extended, as numeric_typmod_scale() does.
        let scale = i16::try_from(((packed & 0x7ff) ^ 1024) - 1024).ok()?;
        Some(PgType::Numeric { precision, scale })
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
    }

    #[test]
    fn numeric_needs_a_precision() {
        let typmod = |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7ff)) + VARHDRSZ;
        let numeric = |precision, scale| Some(PgType::Numeric { precision, scale });
        assert_eq!(PgType::from_oid(1700, -1), None);
        assert_eq!(PgType::from_oid(1231, -1), None);
        assert_eq!(PgType::from_oid(1700, typmod(12, 2)), numeric(12, 2));
        assert_eq!(PgType::from_oid(1700, typmod(5, -3)), numeric(5, -3));
        assert_eq!(PgType::from_oid(1700, typmod(1000, 1000)), numeric(1000, 1000));
    }

    #[test]
    fn json_form_is_stable() {
        let json = serde_json::to_string(&PgType::array(PgType::Numeric { precision: 9, scale: 2 })).unwrap();
        assert_eq!(json, r#"{"array":{"numeric":{"precision":9,"scale":2}}}"#);
        assert_eq!(serde_json::to_string(&PgType::TimestampTz).unwrap(), r#""timestamptz""#);
    }
}
