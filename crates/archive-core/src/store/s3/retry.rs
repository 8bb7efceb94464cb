//! One bounded retry for everything: requests, bodies that end early, uploads. The SDK's own is off, so that attempts
//! do not multiply and it is known whether an earlier attempt may have succeeded.

use crate::error::{Error, Result};
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// How often, and how long to wait in between.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    pub(super) attempts: u32,
    pub(super) backoff: Duration,
}

/// A failed attempt.
#[derive(Debug)]
pub(super) enum Attempt {
    /// Another one may succeed.
    Again(Error),
    /// Another one would fail alike.
    Final(Error),
}

impl Retry {
    /// Runs `attempt` with its number, from 1, until it succeeds, fails for good or the attempts are used up.
    pub(super) async fn run<T, F>(&self, mut attempt: impl FnMut(u32) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Attempt>>,
    {
        let mut number = 1;
        loop {
            match attempt(number).await {
                Ok(value) => return Ok(value),
                Err(Attempt::Final(error)) => return Err(error),
                Err(Attempt::Again(error)) if number >= self.attempts => return Err(exhausted(error, number)),
                Err(Attempt::Again(_)) => tokio::time::sleep(self.wait_after(number)).await,
            }
            number += 1;
        }
    }

    /// Anything from nothing to twice as much as last time, so that many clients do not return at once.
    fn wait_after(&self, number: u32) -> Duration {
        let most = self.backoff.saturating_mul(1 << (number - 1).min(16)).min(LONGEST_WAIT);
        most.mul_f64(random_fraction())
    }
}

fn exhausted(error: Error, attempts: u32) -> Error {
    let detail = error.detail_text().unwrap_or_default();
    error.detail(format!("{detail} Attempts made: {attempts}.").trim_start().to_owned())
}

/// The standard library seeds its hash maps randomly; good enough for spreading waits.
fn random_fraction() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 11;
    bits as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn waits_grow_and_stay_bounded() {
        let retry = Retry { attempts: 20, backoff: Duration::from_millis(100) };
        for number in 1..20 {
            let most = Duration::from_millis(100).saturating_mul(1 << (number - 1)).min(LONGEST_WAIT);
            assert!((0..100).all(|_| retry.wait_after(number) <= most));
        }
    }

    #[tokio::test]
    async fn attempts_are_bounded_and_final_errors_end_them() {
        let retry = Retry { attempts: 3, backoff: Duration::from_millis(1) };
        let mut seen = Vec::new();
        let error = retry
            .run(|number| {
                seen.push(number);
                async { Err::<(), _>(Attempt::Again(Error::new(ErrorKind::Storage, "m").detail("D."))) }
            })
            .await
            .unwrap_err();
        assert_eq!(seen, [1, 2, 3]);
        assert_eq!(error.detail_text().unwrap(), "D. Attempts made: 3.");
        let mut count = 0;
        let attempt = |_| {
            count += 1;
            async { Err::<(), _>(Attempt::Final(Error::new(ErrorKind::NotFound, "m"))) }
        };
        retry.run(attempt).await.unwrap_err();
        assert_eq!(count, 1);
    }
}
