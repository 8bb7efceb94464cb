//! Archive classes of storages: objects move there by `glacier_after`, and readable copies of those in frozen classes come by request.

mod follow;
mod moving;
mod reattach;
mod request;

pub use follow::{poll, step as follow_step};
pub use moving::step as moving_step;
pub use reattach::{later as reattach_later, step as reattach_step};
pub use request::{Wish, queue_follow, request};
