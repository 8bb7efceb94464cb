//! What a request to archive rows means for a table, with everything checked that can be checked before a row is read.

use archive_core::codec::ObjectFormat;
use archive_core::lifecycle::Kind;
use archive_core::naming;
use archive_core::store::BlockingStore;
use pgrx::pg_sys;

use super::columns::{self, KeyColumn};
use super::mode::{Mode, Wanted};
use super::references::{self, Reference};
use super::row_set;
use crate::catalog;
use crate::catalog::remnant::Marker;
use crate::engine::{storage, where_clause};
use crate::error::{Error, Result, SqlState};
use crate::partition::archive_tree::{self, ArchiveNames};
use crate::partition::check;
use crate::partition::discover::{self, Leaf};
use crate::pg::user;

/// Which rows are archived, and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// The table: not partitioned, or partitioned by hash.
    pub source: pg_sys::Oid,
    /// Rows older than this; ISO text with an offset. `None` for all that match the clause.
    pub archive_before: Option<String>,
    /// The column with a row's time; found where it is not named.
    pub time_column: Option<String>,
    /// One boolean expression over the table, from the user.
    pub clause: Option<String>,
    /// The columns of a unique key in whose order rows are taken; the primary key where they are not named.
    pub order_key: Option<Vec<String>>,
    /// Rows of a batch at most.
    pub batch_rows: i64,
    /// Bytes of a batch's values; the row with which they are reached is the last.
    pub batch_bytes: u64,
    /// Storage, if named.
    pub storage: Option<String>,
    /// Format of the objects, if named.
    pub format: Option<ObjectFormat>,
    /// What happens to rows that somebody else has locked.
    pub locked: Locked,
    /// What happens to rows that other rows reference.
    pub referenced: Referenced,
    /// What becomes of the rows.
    pub wanted: Wanted,
}

/// What happens to rows that somebody else has locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locked {
    /// They are left for a later batch.
    Skip,
    /// They are waited for, `archive_ext.lock_timeout` at most.
    Wait,
}

impl Locked {
    /// Parses `skip` or `wait` (22023 otherwise).
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "skip" => Ok(Self::Skip),
            "wait" => Ok(Self::Wait),
            other => Err(Error::new(
                SqlState::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("locked must be 'skip' or 'wait', not \"{other}\""),
            )),
        }
    }

    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Wait => "wait",
        }
    }
}

/// What happens to rows that rows of other tables reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Referenced {
    /// They stay until nothing references them.
    Skip,
    /// The call is refused.
    Refuse,
    /// Those rows are archived with them, whatever their age, and those that reference them, too.
    Cascade,
}

impl Referenced {
    /// Parses `skip`, `refuse` or `cascade` (22023 otherwise).
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "skip" => Ok(Self::Skip),
            "refuse" => Ok(Self::Refuse),
            "cascade" => Ok(Self::Cascade),
            other => Err(Error::new(
                SqlState::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("referenced must be 'skip', 'refuse' or 'cascade', not \"{other}\""),
            )),
        }
    }

    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Refuse => "refuse",
            Self::Cascade => "cascade",
        }
    }
}

impl Request {
    /// All rows that match a clause, with the bounds of a batch that nobody chose.
    pub fn of_clause(source: pg_sys::Oid, clause: Option<String>) -> Self {
        Self {
            source,
            archive_before: None,
            time_column: None,
            clause,
            order_key: None,
            batch_rows: BATCH_ROWS,
            batch_bytes: BATCH_BYTES,
            storage: None,
            format: None,
            locked: Locked::Wait,
            referenced: Referenced::Refuse,
            wanted: Wanted::default(),
        }
    }

    /// Refuses batches of nothing (22023).
    fn check(&self) -> Result<()> {
        if self.batch_rows > 0 && self.batch_bytes > 0 {
            return Ok(());
        }
        Err(Error::new(SqlState::ERRCODE_INVALID_PARAMETER_VALUE, "batch_rows and batch_bytes must be positive"))
    }
}

/// Parses the name of a format (22023 for another).
pub fn parse_format(name: &str) -> Result<ObjectFormat> {
    ObjectFormat::parse(name).ok_or_else(|| {
        Error::new(
            SqlState::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("format must be 'parquet', 'ndjson.gz' or 'ndjson', not \"{name}\""),
        )
    })
}

/// Rows of a batch where nobody says.
pub const BATCH_ROWS: i64 = 5_000;
/// Bytes of a batch where nobody says.
pub const BATCH_BYTES: u64 = 64 << 20;

/// A request with everything looked up that it needs.
#[derive(Debug)]
pub struct Plan {
    /// The request.
    pub request: Request,
    /// The table whose rows are archived: a managed table, or a partition of one whose rows stay as stubs.
    pub table: Leaf,
    /// The managed table.
    pub root: pg_sys::Oid,
    /// Its schema and name.
    pub name: (String, String),
    /// The key in whose order rows are taken.
    pub key: Vec<KeyColumn>,
    /// The column with a row's time.
    pub time: Option<String>,
    /// What becomes of the rows.
    pub mode: Mode,
    /// What tells rows that are in the archive from others, if such rows stay.
    pub marker: Option<Marker>,
    /// Foreign keys of other rows to the table's; none where rows stay.
    pub references: Vec<Reference>,
    /// Its archive relations.
    pub names: ArchiveNames,
    /// Storage.
    pub storage: String,
    /// Format of the objects: as requested, else the policy's.
    pub format: ObjectFormat,
    /// The storage, open.
    pub store: BlockingStore,
}

impl Plan {
    /// Looks everything up and opens the storage; nothing is changed and nothing is written.
    ///
    /// Errors: 42809 for partitions, tables partitioned otherwise, views and the like; 42501 for tables of others; 55000 for
    /// static ones and those without a unique key; 42703, 42702 about the time column; 42601 and others about the clause.
    pub fn of(request: &Request) -> Result<Self> {
        request.check()?;
        let table = table(request.source, request.wanted.leaves_stubs())?;
        let root = table.root.unwrap_or(table.oid);
        let name = discover::schema_and_name(root)?;
        let policy = catalog::policy::of(root)?;
        let names = ArchiveNames::of(root, &name.1, &policy)?;
        archive_tree::check_schema(&names.schema, table.owner)?;
        let archived = catalog::managed_table::of_source(root)?.and_then(|managed| managed.archive_table);
        if archived.is_none() {
            let set = naming::row_set_name(row_set::base_name(&names, &table), 1)?;
            archive_tree::check_names(root, &names, &set, &set)?;
        }
        let key = columns::key(&table, request.order_key.as_deref())?;
        let time = match (&request.archive_before, &request.time_column) {
            (None, None) => None,
            (_, named) => Some(columns::time(&table, named.as_deref())?),
        };
        where_clause::check(request.clause.as_deref(), &table.qualified())?;
        let mode = Mode::of(&request.wanted, &table, &key, time.as_deref())?;
        let of_policy = policy.format.as_deref().and_then(ObjectFormat::parse);
        let storage = storage::choose(request.storage.as_deref(), &policy)?;
        let store = storage::open_to_write(&storage, root, table.owner)?;
        Ok(Self {
            references: if mode == Mode::Delete { references::to(&table)? } else { Vec::new() },
            marker: mode.marker_of(root)?,
            request: Request { wanted: mode.settled(&request.wanted), ..request.clone() },
            mode,
            root,
            table,
            name,
            key,
            time,
            names,
            format: request.format.or(of_policy).unwrap_or_default(),
            storage,
            store,
        })
    }
}

/// The table, or why its rows cannot be archived one by one. Partitions by RANGE or LIST are archived as a whole, unless their
/// rows leave stubs.
pub fn table(source: pg_sys::Oid, leaves_stubs: bool) -> Result<Leaf> {
    let Some(table) = discover::leaf(source)? else {
        return Err(Error::new(
            SqlState::ERRCODE_UNDEFINED_TABLE,
            format!("relation with OID {} does not exist", source.to_u32()),
        ));
    };
    let name = table.qualified();
    let wrong = |what: &str| {
        Error::new(SqlState::ERRCODE_WRONG_OBJECT_TYPE, format!("rows of \"{name}\" cannot be archived: it {what}"))
    };
    let root = table.root.filter(|root| *root != source);
    let has_place = table.kind == 'r' && table.bounds.as_deref().is_some_and(|bounds| bounds != "DEFAULT");
    if let Some(root) = root.filter(|_| !(leaves_stubs && has_place)) {
        let whole = match discover::kind(root)?.is_archived_by_rows() {
            true => format!("Name its table, \"{}\".", catalog::qualified_name(root)?),
            false => format!("SELECT archive_partition('{name}') archives it as a whole."),
        };
        return Err(wrong("is a partition").hint(whole));
    }
    let root = root.unwrap_or(source);
    check::not_static(root)?;
    match (table.kind, discover::kind(root)?) {
        ('r', Kind::Lifecycle) => {
            return Err(wrong("is a partition of a lifecycle label, which rows leave for another")
                .hint("Give its rows another status with set_lifecycle_where, and archive the partition."));
        }
        ('r', _) | ('p', Kind::Hash) => {}
        ('p', Kind::Time) => {
            return Err(
                wrong("is partitioned by RANGE").hint("Archive its partitions: SELECT archive_partition(partition).")
            );
        }
        ('p', _) => {
            return Err(wrong("is partitioned by LIST")
                .hint("Give its rows another status with set_lifecycle_where, and archive the partitions."));
        }
        _ => return Err(wrong("is not a table").hint("Name a table, or a table partitioned by hash.")),
    }
    match table.persistence {
        't' => return Err(wrong("is a temporary table").hint("Temporary tables end with their session.")),
        'u' => return Err(wrong("is an unlogged table").hint(format!("ALTER TABLE {name} SET LOGGED;"))),
        _ => {}
    }
    if !user::has_privileges_of(table.owner) {
        return Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("must be owner of table {name}")));
    }
    if columns::has_heirs(source)? {
        return Err(wrong("has tables that inherit from it")
            .hint("Make them partitions, or archive them one by one after ALTER TABLE … NO INHERIT."));
    }
    Ok(table)
}
