//! `check_consistency`: where catalog, relations and storages disagree, and what of that can be mended without losing anything.

mod relations;
mod storages;

use crate::error::{Error, OrRaise, Result};
use crate::partition::check;
use crate::pg::server_text::log;
use crate::pg::xact;

/// One thing that is not as it should be.
#[derive(Debug)]
pub struct Line {
    /// What it is about.
    pub object: String,
    /// What is wrong.
    pub problem: String,
    /// Whether it was mended.
    pub repaired: bool,
    /// What to do; what mends it, or did.
    pub remedy: String,
}

impl Line {
    fn new(object: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { object: object.into(), problem: problem.into(), repaired: false, remedy: remedy.into() }
    }

    /// Mends it by `work` if asked to; what does not work is told, and leaves nothing behind.
    fn mended(self, repair: bool, work: impl FnOnce() -> Result<()>) -> Result<Self> {
        if !repair {
            let remedy = format!("SELECT check_consistency(repair => true): {}", self.remedy);
            return Ok(Self { remedy, ..self });
        }
        match attempt(work) {
            Ok(()) => {
                log!("check_consistency mended {}: {}", self.object, self.problem);
                Ok(Self { repaired: true, ..self })
            }
            Err(error) => Ok(Self { problem: format!("{}; not mended: {}", self.problem, told(&error)), ..self }),
        }
    }
}

/// Runs `work` in a subtransaction: an error leaves nothing of it behind.
fn attempt<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    Ok(xact::subtransaction(|| work().or_raise())?)
}

fn told(error: &Error) -> String {
    [Some(error.message()), error.detail_text()].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// Looks at everything that the current user may act as the owner of, and at the storages that he administers; with `repair` mends what
/// needs no decision. Nothing that it does removes data.
///
/// Locks with `repair`: those of each mending, to the end of the transaction. Errors: 25001 in REPEATABLE READ and SERIALIZABLE.
pub fn check(repair: bool) -> Result<Vec<Line>> {
    check::transaction("checking consistency")?;
    let mut lines = relations::check(repair)?;
    lines.extend(storages::check()?);
    Ok(lines)
}
