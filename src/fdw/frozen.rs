//! Objects of frozen storage classes: a query that needs some is refused before it reads anything, with all of them.

use super::exec::Scan;
use crate::catalog::frozen::{self, Frozen};
use crate::error::Result;

/// Refuses a query (55000) if these scans of it need what cannot be read.
pub(super) fn refuse<'a>(scans: impl Iterator<Item = &'a mut Scan>) -> Result<()> {
    let mut needed: Vec<Frozen> = Vec::new();
    for scan in scans {
        let Some(found) = scan.frozen_at_start()? else { continue };
        // A partition may be read twice.
        match needed.iter_mut().find(|one| one.id == found.id) {
            Some(one) if one.objects < found.objects => *one = found,
            Some(_) => {}
            None => needed.push(found),
        }
    }
    if needed.is_empty() { Ok(()) } else { Err(frozen::refusal(&needed)?) }
}
