//! An upload fed by the main thread and driven by a task that outlives a cancel, so that it can abort at the store.

use super::blocking::Counters;
use super::runtime::UploadCanceller;
use super::{BlockingStore, ObjectMeta, ObjectStore, Upload};
use crate::error::{Error, ErrorKind, Result};
use bytes::{Bytes, BytesMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Bytes travel to the task in pieces of this size, which is also S3's part size here: no copy on the way.
pub(super) const PIECE: usize = 8 * 1024 * 1024;
/// How long dropping an unfinished upload waits for its abort; it goes on in the background.
const ABORT_WAIT: Duration = Duration::from_millis(500);

type Failure = Arc<Mutex<Option<Error>>>;

enum Command {
    Write(Bytes),
    Finish(oneshot::Sender<Result<ObjectMeta>>),
}

/// One object being written from the main thread. Dropped without [`BlockingUpload::finish`], it aborts at the store.
#[derive(Debug)]
pub struct BlockingUpload {
    store: BlockingStore,
    commands: Option<mpsc::Sender<Command>>,
    buffer: BytesMut,
    failure: Failure,
    canceller: UploadCanceller,
    finished: bool,
}

impl BlockingUpload {
    pub(super) fn begin(store: &BlockingStore, key: &str) -> Result<Self> {
        let (commands, receiver) = mpsc::channel(1);
        let failure = Failure::default();
        let (cancelled, ticket) = store.io().register_upload();
        let canceller = ticket.canceller();
        let driver = Driver {
            store: Arc::clone(store.store()),
            key: key.to_owned(),
            counters: Arc::clone(store.counters()),
            failure: Arc::clone(&failure),
        };
        store.io().spawn(async move {
            driver.run(receiver, cancelled).await;
            drop(ticket);
        })?;
        let buffer = BytesMut::new();
        Ok(Self { store: store.clone(), commands: Some(commands), buffer, failure, canceller, finished: false })
    }

    /// Appends bytes; blocks interruptibly while four parts of 8 MiB are in flight and two wait (56 MiB in all). An error of the background
    /// task shows on the next call.
    pub fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            if self.buffer.is_empty() && bytes.len() >= PIECE {
                self.send(bytes.split_to(PIECE))?;
                continue;
            }
            let take = bytes.len().min(PIECE - self.buffer.len());
            self.buffer.extend_from_slice(&bytes.split_to(take));
            if self.buffer.len() == PIECE {
                let piece = self.buffer.split().freeze();
                self.send(piece)?;
            }
        }
        Ok(())
    }

    /// Makes the object visible and tells what the store knows about it.
    pub fn finish(mut self) -> Result<ObjectMeta> {
        let rest = self.buffer.split().freeze();
        if !rest.is_empty() {
            self.send(rest)?;
        }
        let (answer, receiver) = oneshot::channel();
        self.command(Command::Finish(answer))?;
        let failure = Arc::clone(&self.failure);
        let meta = self.store.wait(async move { receiver.await.unwrap_or_else(|_| Err(taken(&failure))) })?;
        self.finished = true;
        Ok(meta)
    }

    fn send(&mut self, piece: Bytes) -> Result<()> {
        self.store.pace(piece.len());
        self.command(Command::Write(piece))
    }

    fn command(&mut self, command: Command) -> Result<()> {
        let Some(commands) = self.commands.clone() else { return Err(taken(&self.failure)) };
        let command = match commands.try_send(command) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(taken(&self.failure)),
            Err(mpsc::error::TrySendError::Full(command)) => command,
        };
        let failure = Arc::clone(&self.failure);
        self.store.wait(async move { commands.send(command).await.map_err(|_| taken(&failure)) })
    }
}

impl Drop for BlockingUpload {
    fn drop(&mut self) {
        self.commands = None;
        if !self.finished {
            self.canceller.cancel(ABORT_WAIT);
        }
    }
}

fn taken(failure: &Failure) -> Error {
    let stored = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    stored.unwrap_or_else(|| Error::new(ErrorKind::Storage, "the upload was aborted"))
}

/// The task's side.
struct Driver {
    store: Arc<dyn ObjectStore>,
    key: String,
    counters: Arc<Counters>,
    failure: Failure,
}

impl Driver {
    async fn run(self, mut commands: mpsc::Receiver<Command>, mut cancelled: watch::Receiver<bool>) {
        self.counters.request();
        let mut upload = match self.store.begin_upload(&self.key).await {
            Ok(upload) => upload,
            Err(error) => return self.fail(&mut commands, error),
        };
        let driven = tokio::select! {
            _ = cancelled.wait_for(|c| *c) => Ok(false),
            driven = self.drive(upload.as_mut(), &mut commands) => driven,
        };
        match driven {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => self.fail(&mut commands, error),
        }
        // Nobody is left to tell when this fails; the store's own expiry or collect_garbage removes the parts.
        let _ = upload.abort().await;
    }

    /// True when the object is complete, false when the other side went away or was told why it is not.
    async fn drive(&self, upload: &mut dyn Upload, commands: &mut mpsc::Receiver<Command>) -> Result<bool> {
        loop {
            match commands.recv().await {
                Some(Command::Write(bytes)) => {
                    self.counters.request();
                    let size = bytes.len();
                    upload.part(bytes).await?;
                    self.counters.wrote(size);
                }
                Some(Command::Finish(answer)) => {
                    self.counters.request();
                    let completed = upload.complete().await;
                    let done = completed.is_ok();
                    let _ = answer.send(completed);
                    return Ok(done);
                }
                None => return Ok(false),
            }
        }
    }

    fn fail(&self, commands: &mut mpsc::Receiver<Command>, error: Error) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        commands.close();
        while commands.try_recv().is_ok() {}
    }
}
