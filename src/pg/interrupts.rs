//! Query cancel, `statement_timeout`, termination and every other interrupt.

/// Handles a pending interrupt. Unwinds to PostgreSQL when the query was cancelled.
pub fn check() {
    pgrx::check_for_interrupts!();
}
