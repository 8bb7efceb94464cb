//! What a scan may be told about the rows it is wanted for. PostgreSQL rechecks every row, so a predicate that is not
//! understood costs time, never correctness.

use super::numeric::NumericBuf;
use super::value::IntervalValue;

/// A test of one column; a scan takes the conjunction of several.
#[derive(Debug, Clone, PartialEq)]
pub struct Predicate {
    /// The column.
    pub field_id: i32,
    /// The test.
    pub test: Test,
}

/// A test of a column's value with the semantics of PostgreSQL's default operators.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// `column op value`
    Compare {
        /// The operator.
        op: CompareOp,
        /// The constant.
        value: Scalar,
        /// What the collation promises.
        text_order: TextOrder,
    },
    /// `column = ANY (values)`
    In {
        /// The constants, without NULLs.
        values: Vec<Scalar>,
        /// What the collation promises.
        text_order: TextOrder,
    },
    /// `column IS NULL`
    IsNull,
    /// `column IS NOT NULL`
    IsNotNull,
}

/// A comparison operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareOp {
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `=`
    Eq,
    /// `>=`
    Ge,
    /// `>`
    Gt,
}

/// What is known about the order of text under the operator's collation; of no meaning for other types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextOrder {
    /// `C` or `POSIX`: text sorts by its bytes.
    Bytewise,
    /// Any other deterministic collation: equal means equal bytes, the order is unknown.
    EqualityOnly,
}

/// A constant in PostgreSQL's units and epochs. It may be of a wider type than the column.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// boolean
    Bool(bool),
    /// smallint, integer, bigint
    Int(i64),
    /// real, double precision
    Float(f64),
    /// numeric
    Decimal(NumericBuf),
    /// text, varchar, enum label
    Text(String),
    /// bytea
    Bytes(Vec<u8>),
    /// Days since 2000-01-01, or an infinity.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
    /// Microseconds since 2000-01-01, or an infinity.
    Timestamp(i64),
    /// uuid
    Uuid([u8; 16]),
    /// interval
    Interval(IntervalValue),
}
