//! Lines of JSON back to values.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::cell::{is_json, is_number};
use super::time;
use crate::codec::Numeric;
use crate::codec::guard::corrupt;
use crate::codec::value::{ArrayValue, IntervalValue, Value};
use crate::schema::{Attribute, PgType, Storage, TableSchema};
use crate::{Error, Result};

/// A value that owns what it holds.
#[derive(Debug)]
pub(in crate::codec) enum Parsed {
    /// A value of a fixed size, or a numeric.
    Plain(Value<'static>),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// OID and name.
    Reg(u32, String),
    /// Attributes.
    Composite(Vec<Option<Parsed>>),
    /// Elements.
    Array(Vec<Option<Parsed>>),
}

impl Parsed {
    /// The value.
    pub(in crate::codec) fn value(&self) -> Value<'_> {
        match self {
            Self::Plain(value) => value.clone(),
            Self::Text(text) => Value::Text(text),
            Self::Bytes(bytes) => Value::Bytes(bytes),
            Self::Reg(oid, name) => Value::Reg(*oid, name),
            Self::Composite(parts) => Value::Composite(values(parts)),
            Self::Array(elements) => {
                let length = i32::try_from(elements.len()).unwrap_or(i32::MAX);
                let dims = if length == 0 { Vec::new() } else { vec![(length, 1)] };
                Value::Array(ArrayValue { dims, elements: values(elements) })
            }
        }
    }
}

fn values(parts: &[Option<Parsed>]) -> Vec<Option<Value<'_>>> {
    parts.iter().map(|part| part.as_ref().map(Parsed::value)).collect()
}

/// What a line says of a column.
#[derive(Debug)]
pub(in crate::codec) enum LineCell {
    /// NULL
    Null,
    /// A value.
    Value(Parsed),
    /// The text of a sidecar.
    Sidecar(String),
}

/// The columns that are wanted of each line.
#[derive(Debug)]
pub(super) struct LineParser {
    /// Place among the members that are wanted, by name.
    members: HashMap<String, usize>,
    columns: Vec<(String, PgType)>,
    /// For each column that is asked for, its place in `columns`.
    asked: Vec<usize>,
}

impl LineParser {
    /// A parser of the fields with these ids. Errors: internal for an id that the schema lacks.
    pub(super) fn new(schema: &TableSchema, ids: &[i32]) -> Result<Self> {
        let sidecars = schema.sidecar_names();
        let (mut positions, mut asked): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
        for id in ids {
            let position = schema.position(*id).ok_or_else(|| crate::codec::reader::no_such_field(*id))?;
            let at = positions.iter().position(|known| *known == position).unwrap_or_else(|| {
                positions.push(position);
                positions.len() - 1
            });
            asked.push(at);
        }
        let mut members = HashMap::new();
        let mut columns = Vec::new();
        for (at, position) in positions.iter().enumerate() {
            let Some((field, sidecar)) = schema.fields.get(*position).zip(sidecars.get(*position)) else { continue };
            members.insert(field.name.clone(), 2 * at);
            members.insert(sidecar.clone(), 2 * at + 1);
            columns.push((field.name.clone(), field.pg_type.clone()));
        }
        Ok(Self { members, columns, asked })
    }

    /// Whether anything is asked of the lines but their number.
    pub(super) fn wants_nothing(&self) -> bool {
        self.asked.is_empty()
    }

    /// The columns of a line, in the order in which they were asked for.
    pub(super) fn parse(&self, line: &[u8]) -> Result<Vec<LineCell>> {
        let mut json = serde_json::Deserializer::from_slice(line);
        let found = LineSeed(self).deserialize(&mut json).and_then(|found| json.end().map(|()| found));
        let found = found.map_err(|error| corrupt("object holds a line that is not what was written").source(error))?;
        let mut cells = Vec::with_capacity(self.asked.len());
        for at in &self.asked {
            cells.push(self.cell(*at, &found)?);
        }
        Ok(cells)
    }

    fn cell(&self, at: usize, found: &[Option<&RawValue>]) -> Result<LineCell> {
        let Some((name, pg_type)) = self.columns.get(at) else { return Ok(LineCell::Null) };
        let member = |place: usize| found.get(place).copied().flatten();
        if let Some(text) = member(2 * at + 1) {
            return string(text.get())
                .map(|text| LineCell::Sidecar(text.into_owned()))
                .ok_or_else(|| strange(name, pg_type));
        }
        let Some(raw) = member(2 * at) else {
            return Err(corrupt(format!("object holds a line without column \"{name}\"")));
        };
        if raw.get() == "null" {
            return Ok(LineCell::Null);
        }
        value(raw.get(), pg_type).map(LineCell::Value).ok_or_else(|| strange(name, pg_type))
    }
}

fn strange(name: &str, pg_type: &PgType) -> Error {
    corrupt(format!("object holds a value of column \"{name}\" that is none of {}", pg_type.sql_name()))
}

/// The members of a line that are wanted, each once.
struct LineSeed<'p>(&'p LineParser);

impl<'de> DeserializeSeed<'de> for LineSeed<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for LineSeed<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a member for each column")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = vec![None; 2 * self.0.columns.len()];
        while let Some(Name(name)) = map.next_key()? {
            match self.0.members.get(name.as_ref()).and_then(|at| found.get_mut(*at)) {
                Some(place @ None) => *place = Some(map.next_value::<&RawValue>()?),
                Some(_) => return Err(serde::de::Error::custom("a member occurs twice")),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// The name of a member; borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// The value that a JSON text stands for; `None` when it is none of the type.
fn value(raw: &str, pg_type: &PgType) -> Option<Parsed> {
    let storage = pg_type.storage();
    let plain = |value: Option<Value<'static>>| value.map(Parsed::Plain);
    match (&storage, pg_type) {
        (Storage::Bool, _) => plain(serde_json::from_str(raw).ok().map(Value::Bool)),
        (Storage::Int16, _) => plain(raw.parse().ok().map(Value::Int2)),
        (Storage::Int32, _) => plain(raw.parse().ok().map(Value::Int4)),
        (Storage::Int64, _) => plain(raw.parse().ok().map(Value::Int8)),
        (Storage::UInt32, _) => plain(raw.parse().ok().map(Value::UInt4)),
        (Storage::Float32, _) => plain(raw.parse().ok().filter(|float: &f32| float.is_finite()).map(Value::Float4)),
        (Storage::Float64, _) => plain(raw.parse().ok().filter(|float: &f64| float.is_finite()).map(Value::Float8)),
        (Storage::Decimal(..) | Storage::NumericText, _) => plain(numeric(raw, &storage)),
        (Storage::Text, _) if is_json(pg_type) => Some(Parsed::Text(raw.to_owned())),
        (Storage::Text, _) => string(raw).map(|text| Parsed::Text(text.into_owned())),
        (Storage::Bytes, _) => string(raw).and_then(|text| bytes(&text)).map(Parsed::Bytes),
        (Storage::Date, _) => plain(string(raw).and_then(|text| time::parse_date(&text)).map(Value::Date)),
        (Storage::Time, _) => plain(string(raw).and_then(|text| time::parse_time(&text)).map(Value::Time)),
        (Storage::Timestamp, _) => {
            plain(string(raw).and_then(|text| time::parse_timestamp(&text)).map(Value::Timestamp))
        }
        (Storage::TimestampTz, _) => {
            let at = string(raw).and_then(|text| time::parse_timestamp(text.strip_suffix('Z')?));
            plain(at.map(Value::Timestamp))
        }
        (Storage::Uuid, _) => {
            let uuid = string(raw).and_then(|text| uuid::Uuid::try_parse(&text).ok());
            plain(uuid.map(|uuid| Value::Uuid(uuid.into_bytes())))
        }
        (Storage::Interval, _) => plain(interval(raw)),
        (Storage::Reg, _) => reg(raw),
        (Storage::Struct(_), PgType::Composite(attributes)) => composite(raw, attributes),
        (Storage::List(_), PgType::Array(element)) => list(raw, element),
        (Storage::Struct(_) | Storage::List(_), _) => None,
    }
}

/// A string, borrowed where it has no escapes.
fn string(raw: &str) -> Option<Cow<'_, str>> {
    serde_json::from_str(raw).ok().map(|Name(text)| text)
}

fn numeric(raw: &str, storage: &Storage) -> Option<Value<'static>> {
    let text = if is_number(storage) { Cow::Borrowed(raw) } else { string(raw)? };
    Numeric::parse_text(&text).filter(Numeric::is_finite).map(Value::Numeric)
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some((digit(*high)? << 4) | digit(*low)?),
        _ => None,
    };
    digits.chunks(2).map(pair).collect()
}

fn interval(raw: &str) -> Option<Value<'static>> {
    #[derive(serde::Deserialize)]
    struct Parts {
        months: i32,
        days: i32,
        micros: i64,
    }
    let Parts { months, days, micros } = serde_json::from_str(raw).ok()?;
    Some(Value::Interval(IntervalValue { months, days, micros }))
}

fn reg(raw: &str) -> Option<Parsed> {
    #[derive(serde::Deserialize)]
    struct Parts {
        oid: u32,
        name: String,
    }
    let Parts { oid, name } = serde_json::from_str(raw).ok()?;
    Some(Parsed::Reg(oid, name))
}

fn composite(raw: &str, attributes: &[Attribute]) -> Option<Parsed> {
    let members: HashMap<String, &RawValue> = serde_json::from_str(raw).ok()?;
    let parts = attributes.iter().map(|attribute| {
        let member = members.get(attribute.name.as_str())?;
        part(member.get(), &attribute.pg_type)
    });
    parts.collect::<Option<_>>().map(Parsed::Composite)
}

fn list(raw: &str, element: &PgType) -> Option<Parsed> {
    let elements: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
    elements.into_iter().map(|raw| part(raw.get(), element)).collect::<Option<_>>().map(Parsed::Array)
}

/// An element or attribute; the outer `None` for what is none of the type.
fn part(raw: &str, pg_type: &PgType) -> Option<Option<Parsed>> {
    if raw == "null" { Some(None) } else { value(raw, pg_type).map(Some) }
}
