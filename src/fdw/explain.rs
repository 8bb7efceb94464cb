//! What EXPLAIN says about a scan. Never a credential: a location has none.

use super::exec::{Scan, Totals};
use crate::catalog::storage;
use crate::pg::explain::Explain;

/// `ExplainForeignScan`.
pub(super) fn explain(scan: &Scan, out: &mut Explain) {
    identity(scan, out);
    if out.is_analyze() {
        work(&scan.totals(), out);
    }
}

fn identity(scan: &Scan, out: &mut Explain) {
    let partition = &scan.archive().partition;
    let location = storage::options(&partition.storage)
        .map_or_else(|_| format!("storage {}", partition.storage), |options| options.location.to_string());
    let (planned, all) = scan.planned();
    if out.is_text() {
        out.text(c"Archive", &format!("{location} ({}, version {})", partition.name, partition.version));
        let filtered = match scan.filtered() {
            _ if scan.is_answered_by_catalog() => " (the catalog has the answer)".to_owned(),
            0 => String::new(),
            skipped => format!(" ({skipped} ruled out by key filters)"),
        };
        out.text(c"Files", &format!("{} of {all}{filtered}", planned.files));
        match &planned.class {
            _ if planned.frozen > 0 => {
                let class = planned.class.as_deref().unwrap_or("a frozen class");
                out.text(
                    c"Storage Class",
                    &format!("{class} ({} to be restored first: request_restore)", planned.frozen),
                );
            }
            Some(class) => out.text(c"Storage Class", class),
            None => {}
        }
    } else {
        out.text(c"Archive", &location);
        out.text(c"Storage", &partition.storage);
        out.text(c"Archived Partition", &partition.name);
        out.integer(c"Archive Version", partition.version.unsigned_abs().into());
        out.integer(c"Files", planned.files as u64);
        out.integer(c"Files Total", all as u64);
        out.integer(c"Bytes of Files", planned.bytes);
        if let Some(class) = &planned.class {
            out.text(c"Storage Class", class);
        }
        out.integer(c"Files to Be Restored", planned.frozen as u64);
        out.integer(c"Files Ruled Out by Key Filters", scan.filtered() as u64);
        out.boolean(c"Answered by Catalog", scan.is_answered_by_catalog());
    }
}

fn work(totals: &Totals, out: &mut Explain) {
    let Totals { read, store, .. } = totals;
    out.integer(c"Files Read", totals.files);
    if out.is_text() {
        let bloom = match read.row_groups_skipped_by_bloom {
            0 => String::new(),
            skipped => format!(" ({skipped} by bloom filter)"),
        };
        let groups = format!("read {}, skipped {}{bloom}", read.row_groups_read, read.row_groups_skipped);
        out.text(c"Row Groups", &groups);
        out.integer(c"Rows Skipped by Page Index", read.rows_skipped_by_page_index);
        let kilobytes = store.bytes_read.div_ceil(1024);
        out.text(c"Storage Reads", &format!("{} requests, {kilobytes} kB", store.requests));
    } else {
        out.integer(c"Row Groups Read", read.row_groups_read);
        out.integer(c"Row Groups Skipped", read.row_groups_skipped);
        out.integer(c"Row Groups Skipped by Bloom Filter", read.row_groups_skipped_by_bloom);
        out.integer(c"Rows Skipped by Page Index", read.rows_skipped_by_page_index);
        out.integer(c"Storage Read Requests", store.requests);
        out.integer(c"Storage Read Bytes", store.bytes_read);
    }
}
