//! The settler: a short-lived worker that does for WARM partitions what a transaction cannot do to itself. Once the
//! caller has committed, it proves their bounds by a scan that nobody waits for, and freezes their rows.

use std::cell::Cell;

use pgrx::prelude::*;

use crate::catalog;
use crate::error::{OrRaise, Result};
use crate::partition::discover;
use crate::partition::freeze::{self, BOUNDS_CHECK};
use crate::pg::{background, vacuum, xact};

thread_local! {
    /// The transaction that a settler waits for already: one serves all partitions of a transaction.
    static WAITED_FOR: Cell<u32> = const { Cell::new(0) };
}

/// Has a worker settle what this transaction made WARM, after it has committed. Without a free slot a notice says what is left
/// to do.
pub fn after_commit(partition: &str) {
    let xid = xact::top_transaction_id();
    if WAITED_FOR.get() == xid {
        return;
    }
    if background::start_in("archive_ext settler", "archive_ext_settler", xid, background::my_database()) {
        WAITED_FOR.set(xid);
    } else {
        crate::pg::server_text::notice!(
            "no background worker slot is free to freeze {partition} after the commit; VACUUM (FREEZE) it, or leave it to autovacuum"
        );
    }
}

/// Entry point of the worker; the argument is the transaction to wait for.
#[allow(unsafe_code)]
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn archive_ext_settler(argument: pg_sys::Datum) {
    let Some(database) = background::database_of_start() else { return };
    background::connect_to_work(database);
    background::wait_for_transaction(argument.value() as u32);
    failpoint!("settler_begins");
    let Ok(partitions) = background::transaction(|| catalog::partition::unsettled(BOUNDS_CHECK)) else { return };
    for partition in partitions {
        if let Some(name) = settle(partition) {
            failpoint!("settler_validated");
            vacuum::freeze(&name);
        }
    }
}

/// Validates the bounds of one partition; its name, if it still is to be frozen.
fn settle(partition: pg_sys::Oid) -> Option<String> {
    background::transaction(|| {
        let done = xact::subtransaction(|| validate(partition).or_raise());
        done.map_err(|caught| {
            crate::pg::server_text::warning!(
                "archive_ext could not prove the bounds of a WARM partition: {}",
                caught.message
            );
        })
        .ok()
        .flatten()
    })
}

fn validate(partition: pg_sys::Oid) -> Result<Option<String>> {
    let Some(leaf) = discover::leaf(partition)? else { return Ok(None) };
    freeze::validate_bounds_check(&leaf)?;
    Ok(Some(leaf.qualified()))
}
