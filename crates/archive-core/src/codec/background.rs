//! Work that another thread does while the caller's thread goes on, and for which that then waits interruptibly.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
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

    /// Has `work` take what is given and give what comes of it. It ends when nothing is given any more, or nobody takes.
    pub(super) fn employ<I: Send + 'static, O: Send + 'static>(
        &self,
        work: impl FnOnce(Receiver<I>, Sender<O>) + Send + 'static,
    ) -> Result<Employed<I, O>> {
        let ((input, given), (results, output)) = (channel(), channel());
        (self.spawn)(Box::new(move || work(given, results)))?;
        Ok(Employed { input, output, poll: self.poll })
    }
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background").finish_non_exhaustive()
    }
}

/// Work in another thread. How much waits to be taken on either side is the caller's affair.
#[derive(Debug)]
pub(super) struct Employed<I, O> {
    input: Sender<I>,
    output: Receiver<O>,
    poll: fn(),
}

impl<I, O> Employed<I, O> {
    /// Gives it something. When it has ended, [`Self::wait`] tells why.
    pub(super) fn give(&self, input: I) {
        // Nobody may be left to take it.
        let _ = self.input.send(input);
    }

    /// What has come of its work, if there is something.
    pub(super) fn take(&self) -> Result<Option<O>> {
        match self.output.try_recv() {
            Ok(output) => Ok(Some(output)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(lost()),
        }
    }

    /// Waits for what comes of its work, calling `poll` now and then.
    pub(super) fn wait(&self) -> Result<O> {
        loop {
            match self.output.recv_timeout(POLL_INTERVAL) {
                Ok(output) => return Ok(output),
                Err(RecvTimeoutError::Timeout) => (self.poll)(),
                Err(RecvTimeoutError::Disconnected) => return Err(lost()),
            }
        }
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Internal, "work in the background ended without a result")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads(poll: fn()) -> Background {
        let spawn = |task: Task| {
            std::thread::spawn(task);
            Ok(())
        };
        Background::new(spawn, poll)
    }

    fn doubling(given: Receiver<i32>, results: Sender<i32>) {
        given.iter().try_for_each(|n| results.send(n * 2)).unwrap();
    }

    #[test]
    fn results_come_back_in_order() {
        let employed = threads(|| ()).employ(doubling).unwrap();
        (0..20).for_each(|n| employed.give(n));
        let results: Vec<i32> = (0..20).map(|_| employed.wait().unwrap()).collect();
        assert_eq!(results, (0..20).map(|n| n * 2).collect::<Vec<_>>());
        assert_eq!(employed.take().unwrap(), None);
    }

    #[test]
    fn a_panic_is_an_error() {
        let lost = |given: Receiver<i32>, _: Sender<i32>| std::panic::panic_any(given.recv());
        let employed = threads(|| ()).employ(lost).unwrap();
        employed.give(1);
        assert_eq!(employed.wait().unwrap_err().kind(), ErrorKind::Internal);
        employed.give(2);
        assert_eq!(employed.take().unwrap_err().kind(), ErrorKind::Internal);
    }

    #[test]
    fn who_waits_may_be_interrupted() {
        let employed = threads(|| std::panic::panic_any("interrupted")).employ(doubling).unwrap();
        let begun = std::time::Instant::now();
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| employed.wait())).is_err());
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
}
