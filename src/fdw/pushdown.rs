//! WHERE clauses → conditions that a plan carries → tests with the values of one execution → predicates of the codec.
//!
//! PostgreSQL rechecks every row, so a clause that is not understood costs time only. What is understood must never
//! hide a row that matches (P9).

use archive_core::codec::{CompareOp, Predicate, Scalar, Test, TextOrder, Value};
use archive_core::schema::{Field, PgType};
use pgrx::pg_sys;
use serde::{Deserialize, Serialize};

use super::archive::Archive;
use super::datetime;
use crate::error::{Error, Result, SqlState};
use crate::pg::clause::{Clause, ClauseColumn, ClauseTest, Expression};
use crate::pg::constant::{self, Constant};
use crate::pg::encoding::Encoding;
use crate::pg::expr::Evaluated;
use crate::pg::{spi, user};

/// What the plan of a scan carries, as JSON in one String node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct PlanData {
    /// Attribute numbers to read; `None` for all.
    pub(super) columns: Option<Vec<i16>>,
    /// Conditions that every row must meet.
    pub(super) conditions: Vec<Condition>,
    /// Whether each row tells its place, as `ctid`: its number among all rows of the archive.
    pub(super) places: bool,
    /// Whether the number of rows and the lowest and highest values of the columns say all that the query asks.
    pub(super) extremes: bool,
}

/// A condition on one column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Condition {
    /// Attribute number of the column.
    pub(super) attribute: i16,
    /// What is asked of it.
    pub(super) test: ConditionTest,
}

/// A test whose value is not known yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ConditionTest {
    /// `column op value`
    Compare(Strategy, Operand),
    /// `column = ANY (value)`
    AnyOf(Operand),
    /// `column IS NULL`
    IsNull,
    /// `column IS NOT NULL`
    IsNotNull,
}

/// The value of a comparison and how to compare with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Operand {
    /// Position of the value among the plan's expressions.
    pub(super) expression: usize,
    /// Operator family.
    pub(super) family: u32,
    /// Type the family knows the column by.
    pub(super) column_type: u32,
    /// Type of the value, or of the array's elements.
    pub(super) value_type: u32,
    /// Collation of the comparison.
    pub(super) collation: u32,
    /// What that collation promises.
    pub(super) order: Order,
}

/// What a collation promises about text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    /// `C`, `POSIX`, and types without collations.
    Bytewise,
    /// Equal means equal bytes.
    Deterministic,
    /// Nothing.
    Nondeterministic,
}

/// A btree strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Strategy {
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

impl Strategy {
    fn of_number(number: i32) -> Option<Self> {
        Some(match number {
            1 => Self::Lt,
            2 => Self::Le,
            3 => Self::Eq,
            4 => Self::Ge,
            5 => Self::Gt,
            _ => return None,
        })
    }

    fn op(self) -> CompareOp {
        match self {
            Self::Lt => CompareOp::Lt,
            Self::Le => CompareOp::Le,
            Self::Eq => CompareOp::Eq,
            Self::Ge => CompareOp::Ge,
            Self::Gt => CompareOp::Gt,
        }
    }
}

impl PlanData {
    /// As text for the plan.
    pub(super) fn to_text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| broken(&error))
    }

    /// From the plan's text.
    pub(super) fn from_text(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| broken(&error))
    }
}

fn broken(error: &serde_json::Error) -> Error {
    Error::new(SqlState::ERRCODE_INTERNAL_ERROR, format!("plan of an archive scan cannot be written or read: {error}"))
}

/// The attributes that conditions are about.
pub(super) fn attributes(conditions: &[Condition]) -> impl Iterator<Item = i16> {
    conditions.iter().map(|condition| condition.attribute)
}

/// The conditions among `clauses`, and the expressions of their values.
pub(super) fn conditions(clauses: &[Clause]) -> Result<(Vec<Condition>, Vec<Expression>)> {
    let (mut conditions, mut values) = (Vec::new(), Vec::new());
    for clause in clauses {
        if let Some((column, test)) = clause.recognise()
            && let Some(test) = condition_test(clause, &column, test, &mut values)?
        {
            conditions.push(Condition { attribute: column.attribute, test });
        }
    }
    Ok((conditions, values))
}

fn condition_test(
    clause: &Clause,
    column: &ClauseColumn,
    test: ClauseTest,
    values: &mut Vec<Expression>,
) -> Result<Option<ConditionTest>> {
    Ok(match test {
        ClauseTest::Null(true) => Some(ConditionTest::IsNull),
        ClauseTest::Null(false) => Some(ConditionTest::IsNotNull),
        ClauseTest::Is(value) => {
            let boolean = pg_sys::BOOLOID;
            let operand = Operand {
                expression: values.len(),
                family: pg_sys::BOOL_BTREE_FAM_OID.to_u32(),
                column_type: boolean.to_u32(),
                value_type: boolean.to_u32(),
                collation: 0,
                order: Order::Bytewise,
            };
            values.push(Expression::boolean(clause, value));
            (column.type_oid == boolean).then_some(ConditionTest::Compare(Strategy::Eq, operand))
        }
        ClauseTest::Operator { operator, collation, value } => operand(column, operator, collation, value, values)?
            .map(|(strategy, operand)| ConditionTest::Compare(strategy, operand)),
        ClauseTest::Any { operator, collation, array } => operand(column, operator, collation, array, values)?
            .filter(|(strategy, _)| *strategy == Strategy::Eq)
            .map(|(_, operand)| ConditionTest::AnyOf(operand)),
    })
}

/// The operand, when the operator belongs to the default btree family of the column's type.
fn operand(
    column: &ClauseColumn,
    operator: pg_sys::Oid,
    collation: pg_sys::Oid,
    value: Expression,
    values: &mut Vec<Expression>,
) -> Result<Option<(Strategy, Operand)>> {
    let Some((family, input)) = constant::default_btree(column.type_oid) else { return Ok(None) };
    let Some((strategy, left, right)) = constant::family_member(operator, family) else { return Ok(None) };
    let Some(strategy) = Strategy::of_number(strategy).filter(|_| left == input) else { return Ok(None) };
    let operand = Operand {
        expression: values.len(),
        family: family.to_u32(),
        column_type: left.to_u32(),
        value_type: right.to_u32(),
        collation: collation.to_u32(),
        order: order(collation)?,
    };
    values.push(value);
    Ok(Some((strategy, operand)))
}

const C_COLLATIONS: [u32; 2] = [950, 951];

fn order(collation: pg_sys::Oid) -> Result<Order> {
    if collation == pg_sys::InvalidOid {
        return Ok(Order::Bytewise);
    }
    if C_COLLATIONS.contains(&collation.to_u32()) {
        return Ok(bytewise());
    }
    if !constant::is_deterministic(collation) {
        return Ok(Order::Nondeterministic);
    }
    Ok(if is_c_locale(collation)? { bytewise() } else { Order::Deterministic })
}

/// Files hold UTF-8, whose order need not be that of the database's encoding.
fn bytewise() -> Order {
    if Encoding::of_database().keeps_order() { Order::Bytewise } else { Order::Deterministic }
}

/// Whether the collation is that of the C library's C locale. The provider counts: a database whose provider is ICU may
/// have `datcollate = 'C'`.
fn is_c_locale(collation: pg_sys::Oid) -> Result<bool> {
    user::elevated(|| {
        spi::one(
            "SELECT coalesce(CASE c.collprovider
                      WHEN 'd' THEN (SELECT d.datcollate IN ('C', 'POSIX')
                                            AND coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') = 'c'
                                     FROM pg_database d WHERE d.datname = current_database())
                      WHEN 'c' THEN c.collcollate IN ('C', 'POSIX') END, false)
             FROM pg_collation c WHERE c.oid = $1",
            &[collation.into()],
            |row| row.need(1),
        )
    })
}

/// A condition with its value.
#[derive(Debug, Clone)]
pub(super) enum Bound {
    /// All of these hold, each with a constant of the type that [`Condition::compared_type`] tells.
    Compare(Vec<(CompareOp, Constant)>),
    /// Equal to one of these.
    AnyOf(Vec<Constant>),
    /// Nothing is known but that NULL does not meet it.
    Strict,
    /// `IS NULL`
    IsNull,
    /// `IS NOT NULL`
    IsNotNull,
}

impl Condition {
    /// The operand of a comparison.
    pub(super) fn operand(&self) -> Option<&Operand> {
        match &self.test {
            ConditionTest::Compare(_, operand) | ConditionTest::AnyOf(operand) => Some(operand),
            ConditionTest::IsNull | ConditionTest::IsNotNull => None,
        }
    }

    /// The condition with this execution's value. `None` when no row can meet it.
    fn bind(&self, values: &[Evaluated]) -> Option<Bound> {
        let value = |operand: &Operand| values.get(operand.expression).copied().unwrap_or(Evaluated::Unknown);
        match &self.test {
            ConditionTest::IsNull => Some(Bound::IsNull),
            ConditionTest::IsNotNull => Some(Bound::IsNotNull),
            ConditionTest::Compare(strategy, operand) => match value(operand) {
                Evaluated::Null => None,
                Evaluated::Unknown => Some(Bound::Strict),
                Evaluated::Value(constant) => Some(operand.compare(*strategy, constant)),
            },
            ConditionTest::AnyOf(operand) => match value(operand) {
                Evaluated::Null => None,
                Evaluated::Unknown => Some(Bound::Strict),
                Evaluated::Value(array) => operand.any_of(array),
            },
        }
    }
}

impl Operand {
    /// The type of constants after [`Condition::bind`]: the column's where dates and times are compared.
    pub(super) fn compared_type(&self) -> u32 {
        let temporal = [pg_sys::DATEOID, pg_sys::TIMESTAMPOID, pg_sys::TIMESTAMPTZOID].map(|oid| oid.to_u32());
        if temporal.contains(&self.column_type) { self.column_type } else { self.value_type }
    }

    fn compare(&self, strategy: Strategy, constant: Constant) -> Bound {
        let column = pg_sys::Oid::from(self.column_type);
        datetime::within_type(column, strategy.op(), constant).map_or(Bound::Strict, Bound::Compare)
    }

    fn any_of(&self, array: Constant) -> Option<Bound> {
        let column = pg_sys::Oid::from(self.column_type);
        let Some(elements) = array.elements() else { return Some(Bound::Strict) };
        if elements.is_empty() {
            return None;
        }
        let within = |constant| match datetime::within_type(column, CompareOp::Eq, constant)?.as_slice() {
            [(CompareOp::Eq, constant)] => Some(*constant),
            _ => None,
        };
        let constants: Option<Vec<Constant>> = elements.into_iter().map(within).collect();
        Some(constants.map_or(Bound::Strict, Bound::AnyOf))
    }
}

/// All conditions with their values. `None` when no row can meet them all.
pub(super) fn bind(conditions: &[Condition], values: &[Evaluated]) -> Option<Vec<Bound>> {
    conditions.iter().map(|condition| condition.bind(values)).collect()
}

/// The bound conditions as predicates of the codec.
pub(super) fn predicates(archive: &Archive, conditions: &[Condition], bounds: &[Bound]) -> Vec<Predicate> {
    let mut predicates = Vec::new();
    for (condition, bound) in conditions.iter().zip(bounds) {
        let field = archive.column(condition.attribute).and_then(|column| archive.field(column));
        if let Some(field) = field {
            let order = condition.operand().map_or(Order::Bytewise, |operand| operand.order);
            let tests = tests(field, order, bound);
            predicates.extend(tests.into_iter().map(|test| Predicate { field_id: field.id, test }));
        }
    }
    predicates
}

fn tests(field: &Field, order: Order, bound: &Bound) -> Vec<Test> {
    match bound {
        Bound::IsNull => vec![Test::IsNull],
        Bound::IsNotNull | Bound::Strict => vec![Test::IsNotNull],
        Bound::Compare(comparisons) => {
            comparisons.iter().map(|(op, constant)| compare_test(field, order, *op, constant)).collect()
        }
        Bound::AnyOf(constants) => {
            let values: Option<Vec<Scalar>> =
                constants.iter().map(|constant| scalar(&field.pg_type, constant)).collect();
            let order = text_order(field, order, CompareOp::Eq);
            vec![values.zip(order).map_or(Test::IsNotNull, |(values, text_order)| Test::In { values, text_order })]
        }
    }
}

fn compare_test(field: &Field, order: Order, op: CompareOp, constant: &Constant) -> Test {
    match (scalar(&field.pg_type, constant), text_order(field, order, op)) {
        (Some(value), Some(text_order)) => Test::Compare { op, value, text_order },
        // The operators are strict.
        _ => Test::IsNotNull,
    }
}

/// What the codec may rely on; `None` when it may not compare at all.
fn text_order(field: &Field, order: Order, op: CompareOp) -> Option<TextOrder> {
    match (&field.pg_type, order) {
        // Labels are not in the order of the enum. They are as archived, or the column would have no field to compare.
        (PgType::Enum, _) => (op == CompareOp::Eq).then_some(TextOrder::EqualityOnly),
        (PgType::Text | PgType::Varchar | PgType::Bpchar, Order::Nondeterministic) => None,
        (PgType::Text | PgType::Varchar | PgType::Bpchar, Order::Deterministic) => {
            (op == CompareOp::Eq).then_some(TextOrder::EqualityOnly)
        }
        _ => Some(TextOrder::Bytewise),
    }
}

/// The constant for a column of type `target`; `None` where the codec does not compare the two.
fn scalar(target: &PgType, constant: &Constant) -> Option<Scalar> {
    if *target == PgType::Enum {
        return constant.enum_label().map(Scalar::Text);
    }
    Some(match (target, constant.value()?) {
        (PgType::Bool, Value::Bool(v)) => Scalar::Bool(v),
        (PgType::Int2 | PgType::Int4 | PgType::Int8 | PgType::Money, value) => Scalar::Int(match value {
            Value::Int2(v) => v.into(),
            Value::Int4(v) => v.into(),
            Value::Int8(v) => v,
            _ => return None,
        }),
        (PgType::Float4 | PgType::Float8, Value::Float4(v)) => Scalar::Float(v.into()),
        (PgType::Float4 | PgType::Float8, Value::Float8(v)) => Scalar::Float(v),
        (PgType::Oid, Value::UInt4(v)) => Scalar::Int(v.into()),
        (PgType::Interval, Value::Interval(v)) => Scalar::Interval(v),
        (PgType::Numeric { .. } | PgType::UnboundedNumeric, Value::Numeric(v)) => Scalar::Decimal(v.to_owned()),
        (PgType::Text | PgType::Varchar | PgType::Bpchar, Value::Text(v)) => Scalar::Text(v.to_owned()),
        (PgType::Bytea, Value::Bytes(v)) => Scalar::Bytes(v.to_owned()),
        (PgType::Date, Value::Date(v)) => Scalar::Date(v),
        (PgType::Time, Value::Time(v)) => Scalar::Time(v),
        (PgType::Timestamp | PgType::TimestampTz, Value::Timestamp(v)) => Scalar::Timestamp(v),
        (PgType::Uuid, Value::Uuid(v)) => Scalar::Uuid(v),
        _ => return None,
    })
}
