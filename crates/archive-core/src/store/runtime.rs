//! The threads that do I/O while the backend's main thread waits interruptibly.

use crate::error::{Error, ErrorKind, Result};
use std::collections::HashMap;
use std::future::Future;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often a waiting main thread looks for interrupts.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A tokio runtime of two workers, and the uploads that live on it.
///
/// Create it after the process forked. Threads inherit the signal mask of the thread that creates them, so block all
/// signals around [`IoRuntime::new`] too: the hook runs a moment after a thread began.
#[derive(Debug)]
pub struct IoRuntime {
    runtime: Option<tokio::runtime::Runtime>,
    uploads: Arc<UploadRegistry>,
}

impl IoRuntime {
    /// Starts the threads; each runs `on_thread_start` first.
    pub fn new(on_thread_start: impl Fn() + Send + Sync + 'static) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(8)
            .thread_name("archive_ext io")
            .on_thread_start(on_thread_start)
            .enable_all()
            .build()
            .map_err(|e| {
                Error::new(ErrorKind::Storage, "could not start the threads for storage requests").source(e)
            })?;
        Ok(Self { runtime: Some(runtime), uploads: Arc::default() })
    }

    /// Runs `future` on the I/O threads and waits for it, calling `poll` at once and then every 20 ms.
    ///
    /// `poll` may unwind, as PostgreSQL's interrupt check does on a cancel; the task is then aborted.
    pub fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
        poll: fn(),
    ) -> Result<T> {
        poll();
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let task = self.spawn(async move {
            let result = future.await;
            let _ = sender.send(result);
        })?;
        let _guard = AbortOnDrop(task);
        loop {
            match receiver.recv_timeout(POLL_INTERVAL) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) => poll(),
                Err(RecvTimeoutError::Disconnected) => return Err(stopped()),
            }
        }
    }

    /// Aborts every upload that is still registered at its store, and waits at most `timeout` for that; for process
    /// exit. True when none is left.
    pub fn abort_uploads(&self, timeout: Duration) -> bool {
        self.uploads.cancel_all();
        self.uploads.wait_until_empty(timeout)
    }

    /// Has one of its threads do `work`, which takes a processor for a while.
    pub fn spawn_work(&self, work: Box<dyn FnOnce() + Send>) -> Result<()> {
        self.runtime.as_ref().ok_or_else(stopped)?.spawn_blocking(work);
        Ok(())
    }

    pub(super) fn spawn(
        &self,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> Result<tokio::task::JoinHandle<()>> {
        Ok(self.runtime.as_ref().ok_or_else(stopped)?.spawn(future))
    }

    pub(super) fn enter(&self) -> Option<tokio::runtime::EnterGuard<'_>> {
        self.runtime.as_ref().map(tokio::runtime::Runtime::enter)
    }

    pub(super) fn register_upload(&self) -> (watch::Receiver<bool>, UploadTicket) {
        UploadRegistry::register(&self.uploads)
    }
}

impl Drop for IoRuntime {
    fn drop(&mut self) {
        self.abort_uploads(Duration::from_millis(500));
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Internal, "the storage task ended without an answer")
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The uploads in progress: each with the switch that cancels it.
#[derive(Debug, Default)]
struct UploadRegistry {
    state: Mutex<RegistryState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct RegistryState {
    next: u64,
    live: HashMap<u64, watch::Sender<bool>>,
}

impl UploadRegistry {
    fn lock(&self) -> MutexGuard<'_, RegistryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(self: &Arc<Self>) -> (watch::Receiver<bool>, UploadTicket) {
        let (sender, receiver) = watch::channel(false);
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        state.live.insert(id, sender);
        (receiver, UploadTicket { registry: Arc::clone(self), id })
    }

    fn cancel_all(&self) {
        for sender in self.lock().live.values() {
            sender.send_replace(true);
        }
    }

    fn wait_until_empty(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        while !state.live.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// Keeps an upload registered until dropped; held by the task that drives it.
#[derive(Debug)]
pub(super) struct UploadTicket {
    registry: Arc<UploadRegistry>,
    id: u64,
}

impl UploadTicket {
    /// A handle that cancels the upload.
    pub(super) fn canceller(&self) -> UploadCanceller {
        UploadCanceller { registry: Arc::clone(&self.registry), id: self.id }
    }
}

impl Drop for UploadTicket {
    fn drop(&mut self) {
        self.registry.lock().live.remove(&self.id);
        self.registry.changed.notify_all();
    }
}

/// Cancels one upload and waits for its end.
#[derive(Debug)]
pub(super) struct UploadCanceller {
    registry: Arc<UploadRegistry>,
    id: u64,
}

impl UploadCanceller {
    pub(super) fn cancel(&self, wait: Duration) {
        let deadline = Instant::now() + wait;
        let mut state = self.registry.lock();
        while let Some(sender) = state.live.get(&self.id) {
            sender.send_replace(true);
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.registry.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    fn no_poll() {}

    #[test]
    fn wait_returns_the_result_at_once() {
        let started = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&started);
        let io = IoRuntime::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        })
        .unwrap();
        let begin = Instant::now();
        for i in 0..200 {
            assert_eq!(io.wait(async move { Ok(i) }, no_poll).unwrap(), i);
        }
        assert!(begin.elapsed() < Duration::from_secs(2), "200 waits must not each take a poll interval");
        assert!(started.load(Ordering::SeqCst) >= 1);
    }

    #[test]
    fn an_unwinding_poll_aborts_the_task() {
        struct SetOnDrop(Arc<AtomicBool>);
        impl Drop for SetOnDrop {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        static POLLS: AtomicUsize = AtomicUsize::new(0);
        fn poll() {
            assert!(POLLS.fetch_add(1, Ordering::SeqCst) < 2, "cancelled");
        }
        let io = IoRuntime::new(|| ()).unwrap();
        let dropped = Arc::new(AtomicBool::new(false));
        let guard = SetOnDrop(Arc::clone(&dropped));
        let begin = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| {
            io.wait(
                async move {
                    let _guard = guard;
                    std::future::pending::<Result<()>>().await
                },
                poll,
            )
        }));
        assert!(result.is_err());
        while !dropped.load(Ordering::SeqCst) {
            assert!(begin.elapsed() < Duration::from_secs(1), "the task lives on");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_panic_in_a_task_is_an_internal_error() {
        let io = IoRuntime::new(|| ()).unwrap();
        let error = io.wait::<()>(async { panic!("bug") }, no_poll).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }

    #[test]
    fn abort_uploads_waits_for_those_registered_and_not_longer() {
        let io = IoRuntime::new(|| ()).unwrap();
        let (mut cancelled, ticket) = io.register_upload();
        io.spawn(async move {
            let _ = cancelled.wait_for(|c| *c).await;
            drop(ticket);
        })
        .unwrap();
        assert!(io.abort_uploads(Duration::from_secs(5)));
        let (_receiver, ticket) = io.register_upload();
        assert!(!io.abort_uploads(Duration::from_millis(30)));
        drop(ticket);
    }
}
