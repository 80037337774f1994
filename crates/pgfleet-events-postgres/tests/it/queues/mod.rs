//! Queues.

mod basics;
mod crash;
mod gaps;
mod keys;
mod place;
mod rotation;
