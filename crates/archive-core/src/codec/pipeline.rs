//! Where batches become objects: in another thread, some batches behind, or at once.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender};

use super::background::{Background, Employed};
use super::object::Batch;
use super::sequence::{Event, ObjectSequence};
use crate::{Error, ErrorKind, Result};

/// Batches that are behind at most: so many that the end of a row group, which takes as long as some batches do, is not waited for.
const MOST_BEHIND: usize = 4;

/// Makes objects of batches.
pub(super) enum Pipeline {
    Here(Box<ObjectSequence>, VecDeque<Event>),
    There(Remote),
}

/// Objects that are made in another thread.
pub(super) struct Remote {
    thread: Employed<Step, Result<Event>>,
    /// Memory of the batches that are not in their objects yet, in order.
    behind: VecDeque<usize>,
}

enum Step {
    Batch(Box<Batch>),
    Finish,
}

impl Pipeline {
    /// Has the objects made in `background`, where there is one.
    pub(super) fn new(objects: ObjectSequence, background: Option<&Background>) -> Result<Self> {
        let Some(background) = background else { return Ok(Self::Here(Box::new(objects), VecDeque::new())) };
        let thread = background.employ(|steps, events| make(objects, &steps, &events))?;
        Ok(Self::There(Remote { thread, behind: VecDeque::new() }))
    }

    /// Whether a batch that takes so much memory can be put, when those that are behind may have `most` together. One always may.
    pub(super) fn has_room(&self, memory: usize, most: usize) -> bool {
        match self {
            Self::Here(..) => true,
            Self::There(Remote { behind, .. }) => {
                behind.is_empty() || (behind.len() < MOST_BEHIND && behind.iter().sum::<usize>() + memory <= most)
            }
        }
    }

    /// Adds a batch.
    pub(super) fn put(&mut self, batch: Batch) -> Result<()> {
        match self {
            Self::Here(objects, events) => objects.write(batch, &mut |event| {
                events.push_back(event);
                Ok(())
            }),
            Self::There(Remote { thread, behind }) => {
                behind.push_back(batch.memory);
                thread.give(Step::Batch(Box::new(batch)));
                Ok(())
            }
        }
    }

    /// No more batches come: [`Event::Ended`] will be the last event.
    pub(super) fn finish(&mut self) -> Result<()> {
        match self {
            Self::Here(objects, events) => objects.finish(&mut |event| {
                events.push_back(event);
                Ok(())
            }),
            Self::There(Remote { thread, .. }) => {
                thread.give(Step::Finish);
                Ok(())
            }
        }
    }

    /// The next event, if there is one.
    pub(super) fn take(&mut self) -> Result<Option<Event>> {
        match self {
            Self::Here(_, events) => Ok(events.pop_front()),
            Self::There(remote) => remote.thread.take()?.map(|event| remote.noted(event)).transpose(),
        }
    }

    /// Waits for the next event.
    pub(super) fn wait(&mut self) -> Result<Event> {
        match self {
            Self::Here(_, events) => {
                events.pop_front().ok_or_else(|| Error::new(ErrorKind::Internal, "nothing is left to wait for"))
            }
            Self::There(remote) => {
                let event = remote.thread.wait()?;
                remote.noted(event)
            }
        }
    }
}

impl Remote {
    fn noted(&mut self, event: Result<Event>) -> Result<Event> {
        if let Ok(Event::Flushed(..)) = event {
            self.behind.pop_front();
        }
        event
    }
}

/// The thread's side. An error is its last word.
fn make(mut objects: ObjectSequence, steps: &Receiver<Step>, events: &Sender<Result<Event>>) {
    let mut tell = |event| {
        let nobody = |_| Error::new(ErrorKind::Internal, "nobody takes the objects");
        events.send(Ok(event)).map_err(nobody)
    };
    for step in steps {
        let done = match step {
            Step::Batch(batch) => objects.write(*batch, &mut tell),
            Step::Finish => objects.finish(&mut tell),
        };
        if let Err(error) = done {
            let _ = events.send(Err(error));
            return;
        }
    }
}
