//! What the services of masar share: the ids and messages that cross their borders, extractors whose refusals are problem
//! documents, and how a service runs.

pub mod extract;
pub mod ids;
pub mod messages;
mod serve;
#[cfg(feature = "testing")]
pub mod testing;
mod text;

pub use serve::{run, serve};
pub use text::Text;
