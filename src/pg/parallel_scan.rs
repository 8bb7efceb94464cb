//! What the processes of a parallel scan share: a position, counters, and a text that the leader leaves for the workers.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use archive_core::codec::SharedPosition;

/// Counters that workers add to.
pub const COUNTERS: usize = 8;

/// The begin of the scan's dynamic shared memory; the text follows.
#[repr(C)]
struct Header {
    position: SharedPosition,
    counters: [AtomicU64; COUNTERS],
    text_bytes: usize,
}

/// A process's way to the shared memory of a scan.
#[derive(Debug, Clone, Copy)]
pub struct SharedScan(NonNull<Header>);

impl SharedScan {
    /// Bytes that a scan with this text needs.
    pub fn size(text: &str) -> usize {
        size_of::<Header>() + text.len()
    }

    /// Fills the memory; the leader does it before workers begin.
    ///
    /// # Safety
    /// `memory` has [`Self::size`] bytes, aligned as PostgreSQL aligns them. What is made of it is used until the callback that shuts
    /// the scan down, no longer.
    pub unsafe fn create(memory: *mut c_void, text: &str) -> Option<Self> {
        let header = NonNull::new(memory.cast::<Header>())?;
        // SAFETY: by the caller's promise the header and the text fit.
        unsafe {
            let counters = [const { AtomicU64::new(0) }; COUNTERS];
            header.write(Header { position: SharedPosition::default(), counters, text_bytes: text.len() });
            header.add(1).cast::<u8>().copy_from(NonNull::from(text.as_bytes()).cast(), text.len());
        }
        Some(Self(header))
    }

    /// The memory that the leader filled.
    ///
    /// # Safety
    /// As for [`Self::create`], which filled it.
    pub unsafe fn attach(memory: *mut c_void) -> Option<Self> {
        NonNull::new(memory.cast()).map(Self)
    }

    fn header(&self) -> &Header {
        // SAFETY: by the promise given to `create` or `attach` it is there; all that changes in it are atomics.
        unsafe { self.0.as_ref() }
    }

    /// Where the rows begin that no process has taken yet.
    pub fn position(&self) -> &SharedPosition {
        &self.header().position
    }

    /// Adds to the counters.
    pub fn count(&self, more: [u64; COUNTERS]) {
        for (counter, more) in self.header().counters.iter().zip(more) {
            counter.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// Takes what was counted.
    pub fn take_counted(&self) -> [u64; COUNTERS] {
        self.header().counters.each_ref().map(|counter| counter.swap(0, Ordering::Relaxed))
    }

    /// The leader's text.
    pub fn text(&self) -> String {
        // SAFETY: `create` wrote so many bytes of UTF-8 behind the header, and nobody changes them.
        let bytes =
            unsafe { std::slice::from_raw_parts(self.0.add(1).cast::<u8>().as_ptr(), self.header().text_bytes) };
        String::from_utf8_lossy(bytes).into_owned()
    }
}
