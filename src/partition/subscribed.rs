//! Partitions that logical replication writes to.

use pgrx::pg_sys;

use super::discover::Leaf;
use crate::error::{Error, Result, SqlState};
use crate::guc;
use crate::pg::{spi, user};

/// Refuses to freeze a partition that a subscription writes to, itself or through a table above it (55000), unless `allowed`
/// or `archive_ext.allow_subscribed` says so: the first late row for it would stop the subscription.
pub fn refuse(leaf: &Leaf, allowed: bool) -> Result<()> {
    if allowed || guc::allow_subscribed() {
        return Ok(());
    }
    let Some(subscriptions) = subscriptions(leaf.oid)? else { return Ok(()) };
    let name = leaf.qualified();
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("\"{name}\" gets its rows by logical replication"),
    )
    .detail(format!(
        "A change of one of its rows at the publisher would fail here, and stop subscription {subscriptions} until the \
         partition is writable again."
    ))
    .hint(
        "Archive it at the publisher, or take it out of the publication and REFRESH the subscription; where no row of it \
         changes any more, allow_subscribed => true, or SET archive_ext.allow_subscribed = on, allows it.",
    ))
}

fn subscriptions(table: pg_sys::Oid) -> Result<Option<String>> {
    user::elevated(|| {
        spi::one(
            "SELECT string_agg(DISTINCT quote_ident(s.subname), ', ')
             FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid
             WHERE r.srrelid = $1 OR r.srrelid IN (SELECT a.relid FROM pg_partition_ancestors($1) a)",
            &[table.into()],
            |row| row.get(1),
        )
    })
}
