//! How fast a job gets on, and how far it will go.

use std::time::Instant;

use super::plan::Plan;
use super::select;
use crate::catalog::batch_job::BatchJob;
use crate::error::Result;

/// A stopwatch.
#[derive(Debug)]
pub struct Laps(Instant);

impl Laps {
    /// Begins now.
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    /// Seconds since the last lap.
    pub fn lap(&mut self) -> f64 {
        let now = Instant::now();
        now.duration_since(std::mem::replace(&mut self.0, now)).as_secs_f64()
    }
}

/// Estimates how many rows the job will have archived in the end, by the planner's statistics: counting them would be a scan.
pub fn estimate(plan: &Plan, job: &mut BatchJob) -> Result<()> {
    job.expected = Some(job.rows + select::estimated(plan)?);
    Ok(())
}

/// The rows that the first line of a plan expects: `Seq Scan on t  (cost=0.00..1.00 rows=100 width=4)`.
pub fn planned_rows(line: &str) -> Option<u64> {
    let (_, rows) = line.split_once(" rows=")?;
    rows.split(' ').next()?.parse().ok()
}
