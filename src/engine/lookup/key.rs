//! Which columns a key is of, and the condition that a row with it meets.

use std::collections::BTreeMap;

use pgrx::pg_sys;
use pgrx::spi::{quote_identifier, quote_literal};
use serde_json::Value;

use crate::error::{Error, Result, SqlState};
use crate::partition::discover::{self, Leaf};
use crate::pg::key_arg::Key;
use crate::pg::{spi, user};

/// A column of a unique key.
#[derive(Debug)]
struct Part {
    name: String,
    /// Its type without modifiers: `'abc'::varchar(2)` would be another value.
    type_sql: String,
    /// Equality as the index knows it.
    operator: String,
}

/// The condition `t.<column> = <value> AND …`.
pub(super) fn condition(table: &Leaf, key: &Key) -> Result<String> {
    let keys = unique_keys(table.oid)?;
    let values = values(table, &keys, key)?;
    let is_named =
        |parts: &&Vec<Part>| parts.len() == values.len() && parts.iter().all(|part| values.contains_key(&part.name));
    let Some(parts) = keys.iter().find(is_named) else { return Err(no_such_key(table, &keys, &values)?) };
    let mut conditions = Vec::with_capacity(parts.len());
    for Part { name, type_sql, operator } in parts {
        let Some(Some(value)) = values.get(name) else {
            return Err(Error::new(
                SqlState::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                format!("the value of key column \"{name}\" must not be null"),
            ));
        };
        conditions.push(format!("t.{} {operator} {}::{type_sql}", quote_identifier(name), quote_literal(value)));
    }
    Ok(conditions.join(" AND "))
}

type Values = BTreeMap<String, Option<String>>;

/// The value of each column that the key names. A single value is that of the first key, which has one column; of a key of several
/// columns it is the text of a JSON object.
fn values(table: &Leaf, keys: &[Vec<Part>], key: &Key) -> Result<Values> {
    let first = keys.first().ok_or_else(|| {
        Error::new(
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("\"{}\" has no unique key by which a row could be looked up", table.qualified()),
        )
        .hint("ALTER TABLE … ADD PRIMARY KEY, or select the row from the table and its archive yourself.")
    })?;
    let text = match (key, first.as_slice()) {
        (Key::Value(value), [only]) => return Ok(Values::from([(only.name.clone(), Some(value.clone()))])),
        (Key::Value(text) | Key::Json(text), _) => text,
    };
    let is_object = serde_json::from_str::<Value>(text).is_ok_and(|json| json.is_object());
    match first.as_slice() {
        _ if is_object => members(text),
        [only] if only.type_sql == "jsonb" => Ok(Values::from([(only.name.clone(), Some(text.clone()))])),
        several => Err(no_object(table, several)),
    }
}

/// The members of a JSON object. PostgreSQL reads it: numbers keep all their digits.
fn members(json: &str) -> Result<Values> {
    let members = user::elevated(|| {
        spi::rows("SELECT key, value FROM jsonb_each_text($1::jsonb)", &[json.into()], |row| {
            Ok((row.need::<String>(1)?, row.get::<String>(2)?))
        })
    })?;
    Ok(members.into_iter().collect())
}

fn no_object(table: &Leaf, key: &[Part]) -> Error {
    let members: Vec<_> = key.iter().map(|part| format!("\"{}\": …", part.name)).collect();
    Error::new(
        SqlState::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("a key of \"{}\" is a JSON object with the values of its columns", table.qualified()),
    )
    .hint(format!("Pass '{{{}}}'.", members.join(", ")))
}

fn no_such_key(table: &Leaf, keys: &[Vec<Part>], values: &Values) -> Result<Error> {
    let name = table.qualified();
    let attributes = discover::attributes(table.oid)?;
    if let Some(unknown) = values.keys().find(|column| !attributes.iter().any(|known| known.name == **column)) {
        return Ok(Error::new(
            SqlState::ERRCODE_UNDEFINED_COLUMN,
            format!("column \"{unknown}\" of \"{name}\" does not exist"),
        ));
    }
    let listed = |names: Vec<&str>| format!("({})", names.join(", "));
    let named = listed(values.keys().map(String::as_str).collect());
    let known: Vec<_> = keys.iter().map(|key| listed(key.iter().map(|part| part.name.as_str()).collect())).collect();
    Ok(Error::new(SqlState::ERRCODE_INVALID_OBJECT_DEFINITION, format!("{named} is no unique key of \"{name}\""))
        .detail(format!("Its unique keys are {}.", known.join(", ")))
        .hint("Name all columns of one of them."))
}

/// The unique keys of a table, the primary key first, then by number of columns.
fn unique_keys(table: pg_sys::Oid) -> Result<Vec<Vec<Part>>> {
    let parts = user::elevated(|| {
        spi::rows(
            "SELECT i.indexrelid, a.attname::text, format_type(b.oid, -1), format('OPERATOR(%I.%s)', n.nspname, o.oprname)
             FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY k(attnum, place)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
             CROSS JOIN LATERAL (
               WITH RECURSIVE d(oid, base) AS (
                 SELECT t.oid, t.typbasetype FROM pg_type t WHERE t.oid = a.atttypid
                 UNION ALL SELECT t.oid, t.typbasetype FROM d JOIN pg_type t ON t.oid = d.base)
               SELECT d.oid FROM d WHERE d.base = 0) b
             JOIN pg_opclass c ON c.oid = i.indclass[k.place - 1]
             JOIN pg_amop m ON m.amopfamily = c.opcfamily AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype
                           AND m.amopmethod = c.opcmethod AND m.amopstrategy = 3
             JOIN pg_operator o ON o.oid = m.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace
             WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
             ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid, k.place",
            &[table.into()],
            |row| {
                let part = Part { name: row.need(2)?, type_sql: row.need(3)?, operator: row.need(4)? };
                Ok((row.need::<pg_sys::Oid>(1)?, part))
            },
        )
    })?;
    Ok(discover::by_index(parts))
}
