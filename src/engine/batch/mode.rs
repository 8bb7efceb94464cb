//! What becomes of a row once it is in the archive: it goes, it stays and is marked, or a stub of it stays.

use pgrx::pg_sys;
use pgrx::spi::quote_identifier;

use super::columns::{self, KeyColumn};
use crate::catalog;
use crate::catalog::remnant::{self, Kind, Marker};
use crate::error::{Error, Result, SqlState};
use crate::partition::discover::{self, Attribute, Leaf};
use crate::pg::{spi, user};

/// What a caller wants.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Wanted {
    /// `delete`, `mark` or `offload`.
    pub mode: String,
    /// The boolean column that marks a row.
    pub mark_column: Option<String>,
    /// The columns that leave a stub; `None` for all that can.
    pub payload: Option<Vec<String>>,
    /// The tsvector column that the payload can be searched by.
    pub search_column: Option<String>,
    /// Its text search configuration.
    pub search_config: Option<String>,
    /// Stubs are wanted for their keys, and may keep all the rest, too.
    pub keep_keys: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            mode: DELETE.to_owned(),
            mark_column: None,
            payload: None,
            search_column: None,
            search_config: None,
            keep_keys: false,
        }
    }
}

const DELETE: &str = "delete";
const MARK: &str = "mark";
const OFFLOAD: &str = "offload";

impl Wanted {
    /// Stubs that keep keys, and all that cannot be NULL.
    pub fn stubs() -> Self {
        Self { mode: OFFLOAD.to_owned(), keep_keys: true, ..Self::default() }
    }

    /// Whether stubs of the rows stay.
    pub fn leaves_stubs(&self) -> bool {
        self.mode == OFFLOAD
    }
}

/// The column that marks rows where nobody names one.
const MARK_COLUMN: &str = "is_archived";
/// When the payload of a stub went; it marks the stub.
pub const ARCHIVED_AT: &str = "archived_at";
/// The tier that the payload of a stub went to.
pub const ARCHIVE_TIER: &str = "archive_tier";
/// Key of the object that the row was written to.
pub const ARCHIVE_KEY: &str = "archive_key";

/// What becomes of the rows, with the columns of the table that it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// They are deleted.
    Delete,
    /// They stay, and this column becomes true.
    Mark(String),
    /// Stubs of them stay.
    Offload(Offload),
}

/// What leaves a stub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offload {
    /// The columns that become NULL.
    pub payload: Vec<String>,
    /// The tsvector column that is filled before, and its configuration.
    pub search: Option<(String, String)>,
}

impl Mode {
    /// What `wanted` means for a table.
    ///
    /// Errors: 22023 for other words and columns that cannot go, 42703 for columns that are not there, 42804 for those of
    /// another type.
    pub fn of(wanted: &Wanted, table: &Leaf, key: &[KeyColumn], time: Option<&str>) -> Result<Self> {
        let mode = match wanted.mode.as_str() {
            DELETE => Self::Delete,
            MARK => Self::Mark(mark_column(wanted, table)?),
            OFFLOAD => Self::Offload(offload(wanted, table, key, time)?),
            other => {
                return Err(invalid(format!("mode must be 'delete', 'mark' or 'offload', not \"{other}\"")));
            }
        };
        let strange = |is: bool, name: &str, mode: &str| match is {
            true => Err(invalid(format!("{name} is for mode '{mode}' only"))),
            false => Ok(()),
        };
        let offloads = matches!(mode, Self::Offload(_));
        strange(wanted.mark_column.is_some() && !matches!(mode, Self::Mark(_)), "mark_column", MARK)?;
        strange(wanted.payload.is_some() && !offloads, "payload", OFFLOAD)?;
        strange(wanted.search_column.is_some() && !offloads, "search_column", OFFLOAD)?;
        Ok(mode)
    }

    /// `wanted` with what the session's settings decided: a job may go on in another session.
    pub fn settled(&self, wanted: &Wanted) -> Wanted {
        let config = match self {
            Self::Offload(Offload { search: Some((_, config)), .. }) => Some(config.clone()),
            _ => wanted.search_config.clone(),
        };
        Wanted { search_config: config, ..wanted.clone() }
    }

    /// The marker that rows get; `None` where they go.
    pub fn marker(&self) -> Option<Marker> {
        match self {
            Self::Delete => None,
            Self::Mark(column) => Some(Marker { kind: Kind::Marked, column: column.clone() }),
            Self::Offload(_) => Some(Marker { kind: Kind::Stub, column: ARCHIVED_AT.to_owned() }),
        }
    }

    /// The marker that rows of the table have or are about to get.
    ///
    /// Errors: 55000 when its rows are marked otherwise.
    pub fn marker_of(&self, source: pg_sys::Oid) -> Result<Option<Marker>> {
        let (now, wanted) = (remnant::of(source)?, self.marker());
        match (&now, &wanted) {
            (Some(now), Some(wanted)) if now != wanted => Err(Error::new(
                SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("archived rows of this table are told by column \"{}\" already", now.column),
            )
            .hint("SELECT forget_marker(table) when none of its rows is marked any more.")),
            (None, _) => Ok(wanted),
            _ => Ok(now),
        }
    }
}

fn invalid(message: String) -> Error {
    Error::new(SqlState::ERRCODE_INVALID_PARAMETER_VALUE, message)
}

fn mark_column(wanted: &Wanted, table: &Leaf) -> Result<String> {
    let column = wanted.mark_column.clone().unwrap_or_else(|| MARK_COLUMN.to_owned());
    let attributes = discover::attributes(table.oid)?;
    match attributes.iter().find(|attribute| attribute.name == column) {
        Some(_) if columns::of_keys(table.oid)?.contains(&column) => {
            Err(invalid(format!("column \"{column}\" cannot mark rows: it belongs to a key")))
        }
        Some(found) if found.type_oid == pg_sys::BOOLOID => Ok(column),
        Some(found) => Err(Error::new(
            SqlState::ERRCODE_DATATYPE_MISMATCH,
            format!("column \"{column}\" of \"{}\" is {}, not boolean", table.qualified(), found.type_sql),
        )),
        None => Err(missing(table, &column).hint(format!(
            "ALTER TABLE {} ADD COLUMN {} boolean NOT NULL DEFAULT false;",
            table.qualified(),
            quote_identifier(&column)
        ))),
    }
}

fn missing(table: &Leaf, column: &str) -> Error {
    Error::new(
        SqlState::ERRCODE_UNDEFINED_COLUMN,
        format!("column \"{column}\" of \"{}\" does not exist", table.qualified()),
    )
}

fn offload(wanted: &Wanted, table: &Leaf, key: &[KeyColumn], time: Option<&str>) -> Result<Offload> {
    let attributes = discover::attributes(table.oid)?;
    require_stub_columns(table, &attributes)?;
    let search = search(wanted, table, &attributes)?;
    let keyed = columns::of_keys(table.oid)?;
    let stays = |column: &Attribute| -> Option<&'static str> {
        let name = column.name.as_str();
        match () {
            () if [ARCHIVED_AT, ARCHIVE_TIER, ARCHIVE_KEY].contains(&name) => Some("it tells about the archive"),
            () if search.as_ref().is_some_and(|(search, _)| search == name) => Some("the payload is searched by it"),
            () if key.iter().any(|key| key.name == name) || keyed.iter().any(|key| key == name) => {
                Some("it belongs to a key")
            }
            () if time == Some(name) => Some("it is the time of the row"),
            () if !column.generated.is_empty() => Some("it is generated"),
            () if column.not_null => Some("it is NOT NULL"),
            () => None,
        }
    };
    let payload = match &wanted.payload {
        Some(named) => named
            .iter()
            .enumerate()
            .filter(|(at, name)| !named[..*at].contains(name))
            .map(|(_, name)| {
                let column = attributes.iter().find(|attribute| attribute.name == *name);
                let column = column.ok_or_else(|| missing(table, name))?;
                match stays(column) {
                    None => Ok(name.clone()),
                    Some(reason) => Err(invalid(format!("column \"{name}\" cannot be offloaded: {reason}"))),
                }
            })
            .collect::<Result<Vec<_>>>()?,
        None => attributes.iter().filter(|column| stays(column).is_none()).map(|column| column.name.clone()).collect(),
    };
    if payload.is_empty() && !wanted.keep_keys {
        return Err(invalid(format!("\"{}\" has no column that could be offloaded", table.qualified()))
            .detail("Columns of keys, NOT NULL and generated ones stay, as does the time column.")
            .hint("ALTER TABLE … ALTER COLUMN … DROP NOT NULL makes a column one that can go."));
    }
    Ok(Offload { payload, search })
}

/// The columns that a stub needs (42703 with the statement that adds them, 42804 when they have other types).
fn require_stub_columns(table: &Leaf, attributes: &[Attribute]) -> Result<()> {
    let needed = [(ARCHIVED_AT, "timestamptz"), (ARCHIVE_TIER, "text"), (ARCHIVE_KEY, "text")];
    let find = |name: &str| attributes.iter().find(|attribute| attribute.name == name);
    let lacking: Vec<_> = needed.iter().filter(|(name, _)| find(name).is_none()).collect();
    if let Some((first, _)) = lacking.first() {
        let add: Vec<_> = lacking.iter().map(|(name, kind)| format!("ADD COLUMN {name} {kind}")).collect();
        return Err(missing(table, first)
            .detail("A stub tells when its payload went, to which tier and to which object.")
            .hint(format!(
                "ALTER TABLE {} {};",
                catalog::qualified_name(table.root.unwrap_or(table.oid))?,
                add.join(", ")
            )));
    }
    let type_of = |name: &str| if name == ARCHIVED_AT { pg_sys::TIMESTAMPTZOID } else { pg_sys::TEXTOID };
    for found in needed.iter().filter_map(|(name, _)| find(name)) {
        if found.type_oid != type_of(&found.name) || found.not_null {
            return Err(Error::new(
                SqlState::ERRCODE_DATATYPE_MISMATCH,
                format!(
                    "column \"{}\" of \"{}\" must be {} and may be NULL",
                    found.name,
                    table.qualified(),
                    if found.name == ARCHIVED_AT { "timestamptz" } else { "text" }
                ),
            ));
        }
    }
    Ok(())
}

fn search(wanted: &Wanted, table: &Leaf, attributes: &[Attribute]) -> Result<Option<(String, String)>> {
    let Some(column) = &wanted.search_column else {
        return match &wanted.search_config {
            Some(_) => Err(invalid("search_config needs a search_column".to_owned())),
            None => Ok(None),
        };
    };
    let found = attributes.iter().find(|attribute| attribute.name == *column).ok_or_else(|| {
        missing(table, column).hint(format!(
            "ALTER TABLE {} ADD COLUMN {} tsvector;",
            table.qualified(),
            quote_identifier(column)
        ))
    })?;
    if found.type_oid != pg_sys::TSVECTOROID || !found.generated.is_empty() {
        return Err(Error::new(
            SqlState::ERRCODE_DATATYPE_MISMATCH,
            format!("column \"{column}\" of \"{}\" must be an ordinary tsvector column", table.qualified()),
        )
        .detail("It is filled with the words of the payload before that goes."));
    }
    // As it is called in every session: the job may go on in another one.
    let config = wanted.search_config.as_deref();
    let config = user::own_sql(user::current(), || {
        spi::one(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.cfgname) FROM pg_catalog.pg_ts_config c
             JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.cfgnamespace
             WHERE c.oid OPERATOR(pg_catalog.=) coalesce($1::pg_catalog.regconfig, pg_catalog.get_current_ts_config())",
            &[config.into()],
            |row| row.need::<String>(1),
        )
    })?;
    Ok(Some((column.clone(), config)))
}
