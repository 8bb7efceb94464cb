//! What becomes of a partition's place and settings as it ages.

use archive_core::lifecycle::Status;
use pgrx::pg_sys;
use pgrx::spi::quote_identifier;

use super::discover::Leaf;
use super::locks;
use crate::error::{Error, Result, SqlState};
use crate::pg::relation::LockMode;
use crate::pg::{interrupts, spi, user};

/// Moves a table and its indexes to a tablespace, what is there already excepted; the bytes that were moved.
///
/// Locks: ACCESS EXCLUSIVE on the partition while it is copied; the wait for it is bounded. Errors: 42704 where there is no such
/// tablespace, 42501 where the table's owner may not create there.
pub fn move_to(leaf: &Leaf, tablespace: &str) -> Result<u64> {
    let target = find_tablespace(tablespace, leaf.owner)?;
    let moving = elsewhere(leaf.oid, target)?;
    let bytes: i64 = moving.iter().map(|relation| relation.bytes).sum();
    if moving.is_empty() {
        return Ok(0);
    }
    let name = leaf.qualified();
    let size: String = spi::one("SELECT pg_catalog.pg_size_pretty($1)", &[bytes.into()], |row| row.need(1))?;
    locks::acquire(leaf.oid, &name, LockMode::AccessExclusive)?;
    crate::pg::server_text::notice!("moving {name} ({size}) to tablespace {tablespace}; it is locked meanwhile");
    let tablespace = quote_identifier(tablespace);
    for relation in moving {
        interrupts::check();
        let (kind, name) = (if relation.is_index { "INDEX" } else { "TABLE" }, relation.name);
        user::as_user(leaf.owner, || spi::execute(&format!("ALTER {kind} {name} SET TABLESPACE {tablespace}"), &[]))?;
    }
    Ok(bytes.unsigned_abs())
}

/// A tablespace in which `owner` may create tables.
pub fn find_tablespace(tablespace: &str, owner: pg_sys::Oid) -> Result<pg_sys::Oid> {
    let found = user::elevated(|| {
        spi::optional(
            "SELECT t.oid, has_tablespace_privilege($2::oid, t.oid, 'CREATE') OR t.oid = d.dattablespace
             FROM pg_tablespace t, pg_database d
             WHERE t.spcname = $1::name AND d.datname = current_database()",
            &[tablespace.into(), owner.into()],
            |row| Ok((row.need::<pg_sys::Oid>(1)?, row.need::<bool>(2)?)),
        )
    })?;
    let role = user::name_of(owner);
    match found {
        Some((oid, true)) => Ok(oid),
        Some((_, false)) => Err(Error::new(
            SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for tablespace \"{tablespace}\""),
        )
        .detail(format!("Role \"{role}\", who owns the table, lacks CREATE on it."))
        .hint(format!(
            "GRANT CREATE ON TABLESPACE {} TO {};",
            quote_identifier(tablespace),
            quote_identifier(&role)
        ))),
        None => {
            Err(Error::new(SqlState::ERRCODE_UNDEFINED_OBJECT, format!("tablespace \"{tablespace}\" does not exist"))
                .hint("CREATE TABLESPACE it, or name another one in the table's policy."))
        }
    }
}

struct Elsewhere {
    name: String,
    is_index: bool,
    bytes: i64,
}

/// The table and its indexes, as far as they are in another tablespace than `target`.
fn elsewhere(table: pg_sys::Oid, target: pg_sys::Oid) -> Result<Vec<Elsewhere>> {
    user::elevated(|| {
        spi::rows(
            "SELECT format('%I.%I', n.nspname, c.relname), c.relkind = 'i',
                    CASE c.relkind WHEN 'i' THEN pg_relation_size(c.oid) ELSE pg_table_size(c.oid) END
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             JOIN pg_database d ON d.datname = current_database()
             WHERE (c.oid = $1 OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = $1))
               AND coalesce(nullif(c.reltablespace, 0), d.dattablespace) <> $2
             ORDER BY c.relkind = 'i', c.oid",
            &[table.into(), target.into()],
            |row| Ok(Elsewhere { name: row.need(1)?, is_index: row.need(2)?, bytes: row.need(3)? }),
        )
    })
}

/// Pages are filled and cleaned for good: few writes are to come. What the owner set for autovacuum stays.
const RESTING: [(&str, &str); 2] =
    [("autovacuum_vacuum_scale_factor", "0.02"), ("autovacuum_analyze_scale_factor", "0.02")];
/// Whatever autovacuum looks at, it freezes.
const FROZEN: (&str, &str) = ("autovacuum_freeze_min_age", "0");

/// Gives a partition the storage parameters of its status. Locks: SHARE UPDATE EXCLUSIVE on it.
pub fn set_parameters(leaf: &Leaf, status: Status) -> Result<()> {
    let has = parameters(leaf.oid)?;
    let value = |name: &str| has.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let mut set: Vec<String> = Vec::new();
    set.extend(RESTING.iter().filter(|(name, _)| value(name).is_none()).map(|(name, to)| format!("{name} = {to}")));
    if value("fillfactor").is_some_and(|factor| factor != "100") {
        set.push("fillfactor = 100".to_owned());
    }
    if status == Status::Warm && value(FROZEN.0).is_none() {
        set.push(format!("{} = {}", FROZEN.0, FROZEN.1));
    }
    let reset = status == Status::Hot && value(FROZEN.0) == Some(FROZEN.1);
    let name = leaf.qualified();
    if !set.is_empty() || reset {
        locks::acquire(leaf.oid, &name, LockMode::ShareUpdateExclusive)?;
    }
    user::as_user(leaf.owner, || {
        if !set.is_empty() {
            spi::execute(&format!("ALTER TABLE {name} SET ({})", set.join(", ")), &[])?;
        }
        if reset {
            spi::execute(&format!("ALTER TABLE {name} RESET ({})", FROZEN.0), &[])?;
        }
        Ok(())
    })
}

fn parameters(table: pg_sys::Oid) -> Result<Vec<(String, String)>> {
    user::elevated(|| {
        spi::rows(
            "SELECT o.option_name, o.option_value FROM pg_class c, pg_options_to_table(c.reloptions) o WHERE c.oid = $1",
            &[table.into()],
            |row| Ok((row.need(1)?, row.need(2)?)),
        )
    })
}
