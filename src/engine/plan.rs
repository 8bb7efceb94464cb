//! What one archive run is going to do, with everything checked that can be checked before it starts.

use std::time::Duration;

use archive_core::manifest::Family;
use archive_core::naming;
use archive_core::store::BlockingStore;
use pgrx::{Uuid, pg_sys};

use super::period::Span;
use super::{storage, throttle};
use crate::catalog;
use crate::error::{Error, Result, SqlState};
use crate::export::ExportSource;
use crate::guc;
use crate::partition::archive_tree::{self, ArchiveNames};
use crate::partition::discover::{self, Leaf};
use crate::partition::{check, locks, subscribed};

/// How strictly the read-back compares. P2 admits nothing weaker than `content`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Row count and whole-row digests of every object.
    Content,
    /// Besides, row by row against the local copy.
    Deep,
}

impl Verify {
    /// Parses `content` or `deep` (22023 otherwise).
    pub fn parse(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "content" => Ok(Self::Content),
            "deep" => Ok(Self::Deep),
            other => {
                Err(Error::new(SqlState::ERRCODE_INVALID_PARAMETER_VALUE, format!("unknown verify level \"{other}\""))
                    .hint("Use 'content' (every object read back, row digests compared) or 'deep' (also row by row)."))
            }
        }
    }

    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Deep => "deep",
        }
    }
}

/// The arguments of `archive_partition` but for the partition.
#[derive(Debug, Clone)]
pub struct Options {
    /// Storage, if named.
    pub storage: Option<String>,
    /// Verify level.
    pub verify: Verify,
    /// How long the local copy stays, in seconds; `None` for the policy's or the GUC's.
    pub drop_local_seconds: Option<i64>,
    /// Whether a partition that a subscription writes to is frozen all the same.
    pub allow_subscribed: bool,
}

/// One partition, ready to be archived.
#[derive(Debug)]
pub struct Plan {
    /// The job.
    pub job: Uuid,
    /// The partition.
    pub leaf: Leaf,
    /// Root of its tree: the managed table.
    pub root: pg_sys::Oid,
    /// Schema and name of the root.
    pub root_name: (String, String),
    /// Immediate parent.
    pub parent: pg_sys::Oid,
    /// Where its archive relations are.
    pub names: ArchiveNames,
    /// Storage.
    pub storage: String,
    /// The storage, open.
    pub store: BlockingStore,
    /// Verify level.
    pub verify: Verify,
    /// How long the local copy stays, in seconds.
    pub keep_seconds: i64,
    /// Name of the local copy.
    pub local_copy: String,
    /// The time it covers.
    pub span: Option<Span>,
    /// What DETACH's foreign key checks took when run ahead.
    pub swap_estimate: Duration,
    /// The family it is archived with.
    pub family: Option<Family>,
    /// Whether a partition that a subscription writes to is frozen all the same.
    pub allow_subscribed: bool,
}

impl Plan {
    /// Checks everything and opens the storage; nothing is changed and nothing is written.
    pub fn prepare(partition: pg_sys::Oid, options: &Options, job: Uuid) -> Result<Self> {
        Self::prepare_member(partition, &[], options, job)
    }

    /// The same for a member of a family: rows of the other `members` may reference it.
    pub fn prepare_member(
        partition: pg_sys::Oid,
        members: &[pg_sys::Oid],
        options: &Options,
        job: Uuid,
    ) -> Result<Self> {
        // Whoever keeps it to themselves is waited for here, and named.
        drop(locks::hold_still(partition)?);
        let leaf = check::archivable(partition)?;
        subscribed::refuse(&leaf, options.allow_subscribed)?;
        let (Some(parent), Some(root)) = (leaf.parent, leaf.root) else {
            return Err(Error::new(
                SqlState::ERRCODE_WRONG_OBJECT_TYPE,
                format!("\"{}\" is not a partition", leaf.qualified()),
            ));
        };
        let root_name = discover::schema_and_name(root)?;
        let policy = catalog::policy::of(root)?;
        let names = ArchiveNames::of(root, &root_name.1, &policy)?;
        let local_copy = naming::local_copy_name(&leaf.name, &job_hex(job))?;
        archive_tree::check_schema(&names.schema, leaf.owner)?;
        archive_tree::check_names(root, &names, &leaf.name, &local_copy)?;
        // Opening the source refuses unsupported column types by name.
        drop(ExportSource::peek(leaf.oid, root)?);
        let swap_estimate = check::inbound_foreign_keys(&leaf, members)?;
        let storage = storage::choose(options.storage.as_deref(), &policy)?;
        let store = storage::open_to_write(&storage, root, leaf.owner)?.paced(throttle::pace);
        let keep_seconds = options
            .drop_local_seconds
            .or(policy.drop_after_seconds())
            .unwrap_or_else(|| i64::from(guc::drop_after_seconds()));
        let span = Span::of(&leaf)?;
        let verify = options.verify;
        Ok(Self {
            job,
            leaf,
            root,
            root_name,
            parent,
            names,
            storage,
            store,
            verify,
            keep_seconds,
            local_copy,
            span,
            swap_estimate,
            family: None,
            allow_subscribed: options.allow_subscribed,
        })
    }

    /// Qualified name of the partition.
    pub fn name(&self) -> String {
        self.leaf.qualified()
    }

    /// Whether the local copy is dropped with the swap.
    pub fn drops_local_copy(&self) -> bool {
        self.keep_seconds <= 0
    }
}

/// The job's id as hex digits.
pub fn job_hex(job: Uuid) -> String {
    job.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}
