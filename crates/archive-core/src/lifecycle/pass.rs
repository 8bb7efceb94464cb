//! Passes of a row-wise archive over its table. A batch takes rows behind the checkpoint only, but rows before it can become
//! eligible, or unlocked, or lose their children meanwhile: so a job is done when a whole pass found nothing to do.

use serde::{Deserialize, Serialize};

/// Where a job is in its pass.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// Key of the last row that the pass looked at, as text; empty at its beginning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checkpoint: Vec<String>,
    /// Rows that the pass archived so far.
    #[serde(default)]
    pub archived: u64,
}

/// What follows a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The same pass goes on, or another begins.
    Batch(Pass),
    /// A whole pass archived nothing.
    Done,
}

impl Pass {
    /// After a batch that archived rows, the last of which has this key.
    pub fn after_batch(self, rows: u64, last: Vec<String>) -> Self {
        Self { checkpoint: last, archived: self.archived + rows }
    }

    /// After a batch of which no row could be archived, the last with this key.
    pub fn after_nothing(self, last: Vec<String>) -> Self {
        Self { checkpoint: last, ..self }
    }

    /// After a batch that found no row behind the checkpoint.
    pub fn at_end(&self) -> Next {
        if self.archived == 0 { Next::Done } else { Next::Batch(Self::default()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_table_is_done_at_once() {
        assert_eq!(Pass::default().at_end(), Next::Done);
    }

    #[test]
    fn after_rows_were_archived_another_pass_looks() {
        let pass = Pass::default().after_batch(10, vec!["10".to_owned()]);
        assert_eq!(pass.at_end(), Next::Batch(Pass::default()));
    }

    #[test]
    fn a_pass_that_only_saw_rows_it_must_leave_is_the_last() {
        assert_eq!(Pass::default().after_nothing(vec!["9".to_owned()]).at_end(), Next::Done);
    }

    proptest! {
        /// Rows become eligible at any place at any time: none that is eligible when the last pass begins is left behind.
        #[test]
        fn nothing_eligible_is_left(
            mut rows in prop::collection::vec(0u32..50, 0..40), batch in 1usize..7,
            mut late in prop::collection::vec((0usize..30, 0u32..50), 0..10)
        ) {
            rows.sort_unstable();
            let (mut pass, mut turn) = (Pass::default(), 0);
            loop {
                late.retain(|(when, row)| {
                    if *when == turn { rows.push(*row); }
                    *when != turn
                });
                rows.sort_unstable();
                turn += 1;
                let from = pass.checkpoint.first().map(|key| key.parse::<u32>().unwrap());
                let found: Vec<u32> = rows.iter().copied().filter(|row| from.is_none_or(|from| *row > from)).take(batch).collect();
                let Some(last) = found.last().copied() else {
                    match pass.at_end() {
                        Next::Done if late.iter().all(|(when, _)| *when >= turn) => break,
                        Next::Done => pass = Pass::default(),
                        Next::Batch(next) => pass = next,
                    }
                    continue;
                };
                // Keys are unique in a table; here equal ones go together.
                let taken = rows.len();
                rows.retain(|row| !(found.contains(row)));
                pass = pass.after_batch((taken - rows.len()) as u64, vec![last.to_string()]);
            }
            prop_assert!(rows.is_empty());
        }
    }
}
