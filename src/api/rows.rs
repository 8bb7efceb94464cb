//! `set_lifecycle_where`, and what the procedure `set_lifecycle_where_steps` calls between its commits.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;

use crate::catalog;
use crate::engine::rows::{self, Request};
use crate::error::{Error, OrRaise, Result, SqlState};
use crate::partition::discover;
use crate::pg::args::{LifecycleStatus, Regclass, Text};
use crate::pg::lock::giving_way;
use crate::pg::{user, xact};

/// Gives the rows that match another status, which moves them to its partition; the rows moved, children included.
#[pg_extern]
fn set_lifecycle_where(
    source: Regclass,
    where_clause: Option<Text>,
    status: Option<LifecycleStatus>,
    removal_time: default!(Option<TimestampWithTimeZone>, "NULL"),
    keep_keys: default!(bool, "false"),
) -> i64 {
    xact::refuse_read_only(c"set_lifecycle_where()");
    request(source, where_clause, status, removal_time, keep_keys)
        .and_then(|request| giving_way(|| rows::move_where(&request)))
        .map(|moved| moved as i64)
        .or_raise()
}

fn request(
    source: Regclass,
    where_clause: Option<Text>,
    status: Option<LifecycleStatus>,
    removal_time: Option<TimestampWithTimeZone>,
    keep_keys: bool,
) -> Result<Request> {
    let missing = |name: &str| Error::new(SqlState::ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("{name} must not be NULL"));
    let clause = where_clause.ok_or_else(|| missing("where_clause").hint("'true' means all rows."))?;
    let status = status.ok_or_else(|| missing("status"))?;
    Ok(Request {
        source: source.0,
        clause: Some(clause.0),
        labels: None,
        to: status.0,
        removal_time: removal_time.as_ref().map(rows::text_of).transpose()?,
        reason: format!("set_lifecycle_where called by {}", user::name_of(user::current())),
        keep_keys,
    })
}

/// What is due; only the table's owner may ask (42501).
fn due_of(source: Regclass) -> Result<Vec<rows::Due>> {
    if !user::has_privileges_of(discover::owner(source.0)?) {
        let name = catalog::qualified_name(source.0)?;
        return Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("must be owner of table {name}")));
    }
    rows::due(source.0)
}

#[pg_schema]
mod archive_ext {
    use pgrx::datum::TimestampWithTimeZone;
    use pgrx::iter::TableIterator;
    use pgrx::prelude::*;
    use pgrx::{JsonB, Uuid};

    use crate::engine::rows::{self, Due};
    use crate::error::OrRaise;
    use crate::pg::args::{LifecycleStatus, Regclass, Text};
    use crate::pg::xact;

    /// What `due` returns for each label.
    type DueRows = TableIterator<
        'static,
        (
            name!(partition, Regclass),
            name!(label, String),
            name!(status, String),
            name!(reason, String),
            name!(request, JsonB),
        ),
    >;

    /// The rows of a lifecycle-partitioned table that are due for another status, by label.
    #[pg_extern]
    #[allow(clippy::type_complexity)]
    fn rows_due(
        source: Regclass,
    ) -> TableIterator<
        'static,
        (
            name!(partition, Regclass),
            name!(label, String),
            name!(status, String),
            name!(reason, String),
            name!(request, JsonB),
        ),
    > {
        let found = super::due_of(source).or_raise();
        DueRows::new(
            found.into_iter().map(|due: Due| {
                (Regclass(due.partition), due.label, due.to.to_string(), due.reason, JsonB(due.request))
            }),
        )
    }

    /// The job that moves rows in batches, new or taken up again.
    #[pg_extern]
    fn begin_rows(
        source: Regclass,
        where_clause: Option<Text>,
        status: Option<LifecycleStatus>,
        removal_time: Option<TimestampWithTimeZone>,
        batch_rows: i64,
        keep_keys: default!(bool, "false"),
    ) -> Uuid {
        xact::refuse_read_only(c"begin_rows()");
        super::request(source, where_clause, status, removal_time, keep_keys)
            .and_then(|request| rows::begin(&request, batch_rows))
            .or_raise()
    }
}
