//! A dynamic shared memory segment through which a backend gives a worker its orders and gets one answer.

use std::sync::atomic::{AtomicU32, Ordering};

use pgrx::pg_sys;

const CAPACITY: usize = 64 * 1024;
const WAITING: u32 = 0;
const ANSWERED: u32 = 1;

#[repr(C)]
struct Layout {
    state: AtomicU32,
    length: AtomicU32,
    text: [u8; CAPACITY],
}

/// One request and one answer, both text.
#[derive(Debug)]
pub struct Mailbox {
    segment: *mut pg_sys::dsm_segment,
    layout: *mut Layout,
}

impl Mailbox {
    /// A new segment holding `request`; `None` when it is too long. It lives as long as the transaction or a worker
    /// that attached to it.
    pub fn create(request: &str) -> Option<Self> {
        if request.len() > CAPACITY {
            return None;
        }
        // SAFETY: the segment is at least as large as Layout, and nobody else is attached yet.
        let mailbox = unsafe {
            let segment = pg_sys::dsm_create(size_of::<Layout>(), 0);
            let layout = pg_sys::dsm_segment_address(segment).cast::<Layout>();
            (*layout).state = AtomicU32::new(WAITING);
            (*layout).length = AtomicU32::new(0);
            Self { segment, layout }
        };
        mailbox.write(request);
        Some(mailbox)
    }

    /// Attaches to a segment by its handle; `None` when its creator is gone.
    pub fn attach(handle: u32) -> Option<Self> {
        // SAFETY: dsm_attach returns NULL for an unknown handle.
        unsafe {
            let segment = pg_sys::dsm_attach(handle);
            (!segment.is_null()).then(|| Self { segment, layout: pg_sys::dsm_segment_address(segment).cast() })
        }
    }

    /// The handle a worker attaches with.
    pub fn handle(&self) -> u32 {
        // SAFETY: the segment is mapped.
        unsafe { pg_sys::dsm_segment_handle(self.segment) }
    }

    /// The text in it.
    pub fn read(&self) -> String {
        // SAFETY: the segment is mapped; `length` bytes of text were written before it was stored.
        unsafe {
            let length = (*self.layout).length.load(Ordering::Acquire) as usize;
            let text = std::slice::from_raw_parts((&raw const (*self.layout).text).cast::<u8>(), length.min(CAPACITY));
            String::from_utf8_lossy(text).into_owned()
        }
    }

    /// Replaces the request with the answer.
    pub fn answer(&self, text: &str) {
        self.write(text);
        // SAFETY: the segment is mapped.
        unsafe { (*self.layout).state.store(ANSWERED, Ordering::Release) };
    }

    /// The answer, once there.
    pub fn answered(&self) -> Option<String> {
        // SAFETY: the segment is mapped.
        let state = unsafe { (*self.layout).state.load(Ordering::Acquire) };
        (state == ANSWERED).then(|| self.read())
    }

    /// Gives the segment back; the other side keeps its own mapping.
    pub fn detach(self) {
        // SAFETY: mapped by create or attach, unmapped once. On an error the resource owner does it.
        unsafe { pg_sys::dsm_detach(self.segment) }
    }

    fn write(&self, text: &str) {
        let mut end = text.len().min(CAPACITY);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        // SAFETY: the segment is mapped and has CAPACITY bytes of text; the two sides take turns.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr(), (&raw mut (*self.layout).text).cast::<u8>(), end);
            (*self.layout).length.store(end as u32, Ordering::Release);
        }
    }
}
