//! Work that another thread does while the caller's thread goes on, and for which that then waits interruptibly.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use crate::{Error, ErrorKind, Result};

/// How often who waits looks for interrupts.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

type Task = Box<dyn FnOnce() + Send>;

/// Where work is done meanwhile.
#[derive(Clone)]
pub struct Background {
    spawn: Arc<dyn Fn(Task) -> Result<()> + Send + Sync>,
    poll: fn(),
}

impl Background {
    /// `spawn` has another thread do something; `poll` checks for interrupts while that is waited for, and may unwind.
    pub fn new(spawn: impl Fn(Task) -> Result<()> + Send + Sync + 'static, poll: fn()) -> Self {
        Self { spawn: Arc::new(spawn), poll }
    }

    /// Has `work` done. What it gives when nobody waits any more is dropped there.
    pub(super) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<Running<T>> {
        let (sender, result) = sync_channel(1);
        let task = move || {
            // Nobody may be left to take it.
            let _ = sender.send(work());
        };
        (self.spawn)(Box::new(task))?;
        Ok(Running { result, poll: self.poll })
    }
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background").finish_non_exhaustive()
    }
}

/// Work in progress.
#[derive(Debug)]
pub(super) struct Running<T> {
    result: Receiver<T>,
    poll: fn(),
}

impl<T> Running<T> {
    /// Work that is done.
    pub(super) fn done(result: T) -> Self {
        let (sender, receiver) = sync_channel(1);
        // The receiver is there.
        let _ = sender.send(result);
        Self { result: receiver, poll: || () }
    }

    /// Waits for its result, calling `poll` now and then.
    pub(super) fn wait(self) -> Result<T> {
        loop {
            match self.result.recv_timeout(POLL_INTERVAL) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Timeout) => (self.poll)(),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::new(ErrorKind::Internal, "work in the background ended without a result"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads() -> Background {
        let spawn = |task: Task| {
            std::thread::spawn(task);
            Ok(())
        };
        Background::new(spawn, || ())
    }

    #[test]
    fn results_come_back() {
        let running: Vec<_> = (0..20).map(|n| threads().run(move || n * 2).unwrap()).collect();
        let results: Vec<i32> = running.into_iter().map(|one| one.wait().unwrap()).collect();
        assert_eq!(results, (0..20).map(|n| n * 2).collect::<Vec<_>>());
    }

    #[test]
    fn a_panic_is_an_error() {
        let lost = threads().run(|| -> i32 { std::panic::panic_any("lost") }).unwrap();
        assert_eq!(lost.wait().unwrap_err().kind(), ErrorKind::Internal);
    }

    #[test]
    fn who_waits_may_be_interrupted() {
        let spawn = |task: Task| {
            std::thread::spawn(|| {
                std::thread::sleep(Duration::from_secs(5));
                task();
            });
            Ok(())
        };
        let slow = Background::new(spawn, || std::panic::panic_any("interrupted")).run(|| ()).unwrap();
        let begun = std::time::Instant::now();
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| slow.wait())).is_err());
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
}
