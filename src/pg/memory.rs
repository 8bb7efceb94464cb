//! A memory context that is deleted with its owner.

use pgrx::pg_sys;

/// An allocation set: reset it between rows, dropped with everything in it.
#[derive(Debug)]
pub struct MemoryContext {
    context: pg_sys::MemoryContext,
}

impl MemoryContext {
    /// A child of the current context.
    pub fn new(name: &'static std::ffi::CStr) -> Self {
        // SAFETY: the name is static; the parent is the live current context.
        let context = unsafe {
            pg_sys::AllocSetContextCreateInternal(
                pg_sys::CurrentMemoryContext,
                name.as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        };
        Self { context }
    }

    /// Frees everything allocated in it.
    pub fn reset(&mut self) {
        // SAFETY: the context is live until Drop; `&mut` proves that no borrowed row is alive.
        unsafe {
            // Most rows allocate nothing, and a call costs more than this look.
            if !(*self.context).isReset || !(*self.context).firstchild.is_null() {
                pg_sys::MemoryContextReset(self.context);
            }
        }
    }

    /// Bytes allocated from the operating system for it and its children.
    pub fn bytes(&self) -> usize {
        // SAFETY: the context is live.
        unsafe {
            if (*self.context).firstchild.is_null() {
                return (*self.context).mem_allocated;
            }
            pg_sys::MemoryContextMemAllocated(self.context, true) as usize
        }
    }

    /// Runs `work` with this as the current context.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        // SAFETY: the context is live; the previous one is restored, or by PostgreSQL's error recovery on unwind.
        let previous = unsafe { pg_sys::MemoryContextSwitchTo(self.context) };
        let result = work();
        // SAFETY: as above.
        unsafe { pg_sys::MemoryContextSwitchTo(previous) };
        result
    }
}

impl Drop for MemoryContext {
    fn drop(&mut self) {
        // On an error the parent context is reset by PostgreSQL, and this one with it.
        if !std::thread::panicking() {
            // SAFETY: created by `new`, deleted once.
            unsafe { pg_sys::MemoryContextDelete(self.context) }
        }
    }
}
