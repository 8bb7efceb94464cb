//! What a PostgreSQL type becomes in Arrow, and through it in Parquet.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, TimeUnit};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;

use super::PgType;

/// Largest precision of a 128-bit decimal.
const DECIMAL128_MAX_PRECISION: u16 = 38;
/// Name of the element of a list, as the Parquet specification wants it.
const ELEMENT: &str = "element";
/// Keys of Arrow's extension types.
const EXTENSION_NAME: &str = "ARROW:extension:name";
const EXTENSION_METADATA: &str = "ARROW:extension:metadata";

/// How the cells of a column are stored natively; several PostgreSQL types share one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// Boolean
    Bool,
    /// 16-bit integer
    Int16,
    /// 32-bit integer
    Int32,
    /// 64-bit integer
    Int64,
    /// 32-bit float
    Float32,
    /// 64-bit float
    Float64,
    /// 128-bit decimal of (precision, scale)
    Decimal(u8, i8),
    /// A numeric that no 128-bit decimal holds, as its text
    NumericText,
    /// UTF-8 text
    Text,
    /// Bytes
    Bytes,
    /// Days since 1970
    Date,
    /// Microseconds since midnight
    Time,
    /// Microseconds since 1970, without time zone
    Timestamp,
    /// Microseconds since 1970, UTC
    TimestampTz,
    /// 16 bytes
    Uuid,
    /// Unsigned 32-bit integer
    UInt32,
    /// Struct of months, days and microseconds
    Interval,
    /// Struct of an OID and the name it stands for
    Reg,
    /// Struct of the attributes' storages
    Struct(Vec<Storage>),
    /// List of the element's storage
    List(Box<Storage>),
}

/// Members of an interval.
pub const INTERVAL_MEMBERS: [(&str, DataType); 3] =
    [("months", DataType::Int32), ("days", DataType::Int32), ("micros", DataType::Int64)];
/// Members of a `reg*` value.
pub const REG_MEMBERS: [(&str, DataType); 2] = [("oid", DataType::UInt32), ("name", DataType::Utf8)];

impl PgType {
    /// How cells of this type are stored.
    pub fn storage(&self) -> Storage {
        match self {
            PgType::Bool => Storage::Bool,
            PgType::Int2 => Storage::Int16,
            PgType::Int4 => Storage::Int32,
            PgType::Int8 => Storage::Int64,
            PgType::Float4 => Storage::Float32,
            PgType::Float8 => Storage::Float64,
            PgType::Numeric { precision, scale } => numeric_storage(*precision, *scale),
            PgType::UnboundedNumeric => Storage::NumericText,
            PgType::Text
            | PgType::Varchar
            | PgType::Bpchar
            | PgType::Json
            | PgType::Jsonb
            | PgType::Enum
            | PgType::Xml
            | PgType::Other => Storage::Text,
            PgType::Bytea | PgType::Opaque => Storage::Bytes,
            PgType::Money => Storage::Int64,
            PgType::Oid => Storage::UInt32,
            PgType::Interval => Storage::Interval,
            PgType::Reg => Storage::Reg,
            PgType::Date => Storage::Date,
            PgType::Time => Storage::Time,
            PgType::Timestamp => Storage::Timestamp,
            PgType::TimestampTz => Storage::TimestampTz,
            PgType::Uuid => Storage::Uuid,
            PgType::Composite(attributes) => Storage::Struct(attributes.iter().map(|a| a.pg_type.storage()).collect()),
            PgType::Array(element) => Storage::List(Box::new(element.storage())),
        }
    }

    /// The Arrow field of a column: always nullable, with the Parquet field id and the logical type's extension.
    pub fn arrow(&self, name: &str, field_id: i32) -> ArrowField {
        let field = self.nested(name);
        let mut metadata = field.metadata().clone();
        metadata.extend(id_metadata(field_id));
        field.with_metadata(metadata)
    }

    /// The field without an id, as the element of a list.
    fn nested(&self, name: &str) -> ArrowField {
        let data_type = match self {
            PgType::Array(element) => DataType::List(Arc::new(element.nested(ELEMENT))),
            PgType::Composite(attributes) => {
                DataType::Struct(attributes.iter().map(|attribute| attribute.pg_type.nested(&attribute.name)).collect())
            }
            PgType::Interval => members(&INTERVAL_MEMBERS),
            PgType::Reg => members(&REG_MEMBERS),
            scalar => scalar.storage().data_type(),
        };
        ArrowField::new(name, data_type, true).with_metadata(self.extension_metadata())
    }

    /// Arrow's canonical extension type, from which Parquet's logical type UUID or JSON is made.
    fn extension_metadata(&self) -> HashMap<String, String> {
        let name = match self {
            PgType::Uuid => "arrow.uuid",
            PgType::Json | PgType::Jsonb => "arrow.json",
            _ => return HashMap::new(),
        };
        HashMap::from([(EXTENSION_NAME.to_owned(), name.to_owned()), (EXTENSION_METADATA.to_owned(), String::new())])
    }

    /// What the column is in Parquet, for documentation.
    pub fn parquet_description(&self) -> String {
        let name = match self.storage() {
            Storage::Bool => "BOOLEAN",
            Storage::Int16 => "INT32 (INT(16, signed))",
            Storage::Int32 => "INT32",
            Storage::Int64 => "INT64",
            Storage::Float32 => "FLOAT",
            Storage::Float64 => "DOUBLE",
            Storage::Decimal(precision, scale) => return format!("DECIMAL({precision}, {scale})"),
            Storage::Text if matches!(self, PgType::Json | PgType::Jsonb) => "BYTE_ARRAY (JSON)",
            Storage::NumericText | Storage::Text => "BYTE_ARRAY (STRING)",
            Storage::Bytes => "BYTE_ARRAY",
            Storage::Date => "INT32 (DATE)",
            Storage::Time => "INT64 (TIME(MICROS))",
            Storage::Timestamp => "INT64 (TIMESTAMP(MICROS, local))",
            Storage::TimestampTz => "INT64 (TIMESTAMP(MICROS, UTC))",
            Storage::Uuid => "FIXED_LEN_BYTE_ARRAY(16) (UUID)",
            Storage::UInt32 => "INT32 (INT(32, unsigned))",
            Storage::Interval => "STRUCT (months INT32, days INT32, micros INT64)",
            Storage::Reg => "STRUCT (oid INT(32, unsigned), name STRING)",
            Storage::Struct(_) | Storage::List(_) => return self.nested_description(),
        };
        name.to_owned()
    }

    fn nested_description(&self) -> String {
        match self {
            PgType::Array(element) => format!("LIST of {}", element.parquet_description()),
            PgType::Composite(attributes) => {
                let parts = attributes.iter().map(|a| format!("{} {}", a.name, a.pg_type.parquet_description()));
                format!("STRUCT ({})", parts.collect::<Vec<_>>().join(", "))
            }
            scalar => scalar.parquet_description(),
        }
    }
}

fn members(members: &[(&str, DataType)]) -> DataType {
    DataType::Struct(members.iter().map(|(name, data_type)| ArrowField::new(*name, data_type.clone(), true)).collect())
}

impl Storage {
    /// The Arrow type of a scalar; nested types get theirs from the [`PgType`], which knows the names.
    fn data_type(&self) -> DataType {
        match self {
            Storage::Bool => DataType::Boolean,
            Storage::Int16 => DataType::Int16,
            Storage::Int32 => DataType::Int32,
            Storage::Int64 => DataType::Int64,
            Storage::Float32 => DataType::Float32,
            Storage::Float64 => DataType::Float64,
            Storage::Decimal(precision, scale) => DataType::Decimal128(*precision, *scale),
            Storage::NumericText | Storage::Text => DataType::Utf8,
            Storage::Bytes => DataType::Binary,
            Storage::Date => DataType::Date32,
            Storage::Time => DataType::Time64(TimeUnit::Microsecond),
            Storage::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Storage::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Storage::Uuid => DataType::FixedSizeBinary(16),
            Storage::UInt32 => DataType::UInt32,
            Storage::Interval => members(&INTERVAL_MEMBERS),
            Storage::Reg => members(&REG_MEMBERS),
            Storage::Struct(_) | Storage::List(_) => DataType::Null,
        }
    }
}

/// The Arrow field of a sidecar column: text that PostgreSQL's input function turns back into the value.
pub fn sidecar_field(name: &str, field_id: i32) -> ArrowField {
    ArrowField::new(name, DataType::Utf8, true).with_metadata(id_metadata(field_id))
}

fn id_metadata(field_id: i32) -> HashMap<String, String> {
    HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), field_id.to_string())])
}

fn numeric_storage(precision: u16, scale: i16) -> Storage {
    let fits =
        (1..=DECIMAL128_MAX_PRECISION).contains(&precision) && scale >= 0 && i32::from(scale) <= i32::from(precision);
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision), Ok(scale)) if fits => Storage::Decimal(precision, scale),
        _ => Storage::NumericText,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numerics_are_decimals_when_they_fit() {
        assert_eq!(PgType::Numeric { precision: 38, scale: 38 }.storage(), Storage::Decimal(38, 38));
        for (precision, scale) in [(39, 0), (5, 6), (5, -1), (1000, 1000)] {
            assert_eq!(PgType::Numeric { precision, scale }.storage(), Storage::NumericText);
        }
    }

    #[test]
    fn fields_carry_id_and_extension() {
        let field = PgType::Uuid.arrow("id", 7);
        assert_eq!(field.metadata().get(PARQUET_FIELD_ID_META_KEY).map(String::as_str), Some("7"));
        assert_eq!(field.extension_type_name(), Some("arrow.uuid"));
        assert_eq!(PgType::Jsonb.arrow("doc", 8).extension_type_name(), Some("arrow.json"));
        assert!(field.is_nullable());
    }

    #[test]
    fn lists_have_a_nullable_element() {
        let DataType::List(element) = PgType::array(PgType::Int4).arrow("a", 1).data_type().clone() else { panic!() };
        assert_eq!((element.name().as_str(), element.is_nullable()), ("element", true));
    }
}
