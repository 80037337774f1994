//! What the traits return.

use std::pin::Pin;

use crate::error::Error;

/// A boxed answer, so that a store can be chosen when the program runs.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;
