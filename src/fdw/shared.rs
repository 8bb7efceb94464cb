//! A scan in a parallel query: the leader leaves what it found in the catalog for the workers, and every process takes the row groups
//! that nobody has taken yet.
//!
//! So all of them read the same objects, whatever is archived or compacted meanwhile, and workers need no snapshot of their own.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use archive_core::codec::{ClaimRows, ReadMetrics};
use archive_core::store::StoreMetrics;
use serde::{Deserialize, Serialize};

use super::exec::{Scan, ScanState, Totals};
use crate::catalog::object::ArchivedObject;
use crate::catalog::partition::ArchivedPartition;
use crate::error::Result;
use crate::pg::foreign_scan::ScanNode;
use crate::pg::parallel_scan::{COUNTERS, SharedScan};
use crate::pg::xact;

/// A process's share of a scan.
#[derive(Debug, Clone)]
pub(super) struct Share {
    shared: SharedScan,
    /// Objects whose first row this process has taken, so that all together count each once.
    begun: Rc<Cell<u64>>,
}

#[derive(Serialize)]
struct Found<'a> {
    partition: &'a ArchivedPartition,
    objects: &'a [ArchivedObject],
}

#[derive(Deserialize)]
struct Left {
    partition: ArchivedPartition,
    objects: Vec<ArchivedObject>,
}

impl Share {
    fn new(shared: SharedScan) -> Self {
        Self { shared, begun: Rc::default() }
    }

    /// The partition and its objects that the leader found.
    pub(super) fn catalog(&self) -> Result<(ArchivedPartition, Vec<ArchivedObject>)> {
        let Left { partition, objects } = serde_json::from_str(&self.shared.text())?;
        Ok((partition, objects))
    }

    /// Whether all rows before `end` are taken.
    pub(super) fn is_past(&self, end: u64) -> bool {
        self.shared.position().is_past(end)
    }

    /// This process's share of the object whose first row is `first` of all rows.
    pub(super) fn part(&self, first: u64) -> Part {
        Part { share: self.clone(), first }
    }

    /// Objects that this process began.
    pub(super) fn begun(&self) -> u64 {
        self.begun.get()
    }
}

/// A process's share of one object.
#[derive(Debug)]
pub(super) struct Part {
    share: Share,
    first: u64,
}

impl ClaimRows for Part {
    fn claim(&self, rows: Range<u64>) -> bool {
        let mine = self.share.shared.position().claim(self.first + rows.start..self.first + rows.end);
        if mine && rows.start == 0 {
            self.share.begun.set(self.share.begun.get() + 1);
        }
        mine
    }
}

/// `EstimateDSMForeignScan`: what the leader leaves for the workers.
pub(super) fn text(scan: &Scan) -> Result<String> {
    let (partition, objects) = scan.found();
    Ok(serde_json::to_string(&Found { partition, objects })?)
}

/// `InitializeDSMForeignScan` and `ReInitializeDSMForeignScan`: the leader begins, from the first row.
pub(super) fn lead(scan: &mut Scan, shared: SharedScan, is_explained: bool) -> Result<()> {
    shared.position().reset();
    if let Some(before) = scan.share.replace(Share::new(shared)) {
        scan.done.files += before.begun();
    }
    // The leader itself may never come to a row.
    if is_explained { scan.plan_files() } else { Ok(()) }
}

/// `InitializeWorkerForeignScan`: the worker waits for its first row.
pub(super) fn wait(node: &mut ScanNode<ScanState>, shared: SharedScan) {
    node.keep(ScanState::Joining(Share::new(shared)));
}

/// `ShutdownForeignScan`: the memory that is shared goes away. Workers leave what they did for `EXPLAIN`. A scan that is not shared goes on,
/// as it does when a cursor is read further.
pub(super) fn shut_down(scan: &mut Scan) {
    let Some(share) = scan.share.take() else { return };
    scan.rewind();
    scan.done.files += share.begun();
    if xact::is_worker() {
        share.shared.count(to_counters(&scan.totals()));
    } else {
        // Where the query has all rows that it wants, workers need not go on.
        share.shared.position().finish();
        scan.others = from_counters(share.shared.take_counted());
    }
}

fn to_counters(totals: &Totals) -> [u64; COUNTERS] {
    let Totals { files, read, store } = totals;
    [
        *files,
        read.row_groups_read,
        read.row_groups_skipped,
        read.row_groups_skipped_by_bloom,
        read.rows_skipped_by_page_index,
        read.rows_read,
        store.requests,
        store.bytes_read,
    ]
}

fn from_counters(counters: [u64; COUNTERS]) -> Totals {
    let [
        files,
        row_groups_read,
        row_groups_skipped,
        row_groups_skipped_by_bloom,
        rows_skipped_by_page_index,
        rows_read,
        requests,
        bytes_read,
    ] = counters;
    Totals {
        files,
        read: ReadMetrics {
            row_groups_read,
            row_groups_skipped,
            row_groups_skipped_by_bloom,
            rows_skipped_by_page_index,
            rows_read,
        },
        store: StoreMetrics { requests, bytes_read, ..StoreMetrics::default() },
    }
}
