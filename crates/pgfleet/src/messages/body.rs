//! What a message says, as a type.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a message says, as a type that both services know.
pub trait MessageBody: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name of the type, as it is written with each message: it outlives the name in Rust.
    const KIND: &'static str;

    /// Where it goes: services subscribe to topics. The name of the type by default.
    const TOPIC: &'static str = Self::KIND;

    /// Messages of one key arrive in the order in which they were committed; by default there is no order.
    fn key(&self) -> Option<String> {
        None
    }
}
