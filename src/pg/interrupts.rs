//! Query cancel, `statement_timeout`, termination and every other interrupt.

use std::cell::Cell;

use pgrx::pg_sys;

type Look = Box<dyn Fn()>;

thread_local! {
    static LOOK: Cell<Option<Look>> = const { Cell::new(None) };
}

/// Has [`check_in_wait`] call something else, too, until it is dropped.
#[derive(Debug)]
pub struct Looking(());

/// `look` may end the work by raising an error.
pub fn also(look: impl Fn() + 'static) -> Looking {
    LOOK.set(Some(Box::new(look)));
    Looking(())
}

impl Drop for Looking {
    fn drop(&mut self) {
        LOOK.set(None);
    }
}

/// Handles a pending interrupt. Unwinds to PostgreSQL when the query was cancelled.
pub fn check() {
    pgrx::check_for_interrupts!();
}

/// The same for a wait of ours. Like PostgreSQL's own waits it also ends the process when the postmaster is gone:
/// a server cannot start again while an old backend lives.
pub fn check_in_wait() {
    check();
    exit_without_postmaster();
    // Taken out meanwhile: what it does may wait itself.
    if let Some(look) = LOOK.take() {
        look();
        LOOK.set(Some(look));
    }
}

/// Answers who waits for every process, as DROP DATABASE and DROP TABLESPACE do; handles no other interrupt.
pub fn let_barriers_pass() {
    // SAFETY: a flag of this process, and PostgreSQL's handler for it.
    unsafe {
        if (&raw const pg_sys::ProcSignalBarrierPending).read_volatile() != 0 {
            pg_sys::ProcessProcSignalBarrier();
        }
    }
}

/// Ends the process when the postmaster is gone; handles no interrupt.
pub fn exit_without_postmaster() {
    let events = (pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH) as i32;
    // SAFETY: a wait of no time at all, without a latch, in a process that has its wait set.
    unsafe {
        pg_sys::WaitLatch(std::ptr::null_mut(), events, 0, pg_sys::PG_WAIT_EXTENSION);
    }
}
