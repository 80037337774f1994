//! What runs a test, as far as the expansion of the attribute needs it: the database is the builder itself.

use std::fmt::Debug;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::embed::{Folder, Seeds};

#[derive(Debug, PartialEq)]
pub(crate) struct Builder {
    pub(crate) name: String,
    pub(crate) migrations: Option<Folder>,
    pub(crate) seeds: Option<Seeds>,
}

pub(crate) struct Service;

impl Service {
    pub(crate) fn builder(name: &str) -> Builder {
        Builder { name: name.to_owned(), migrations: None, seeds: None }
    }
}

impl Builder {
    pub(crate) fn migrations(self, folder: Folder) -> Self {
        Self { migrations: Some(folder), ..self }
    }

    pub(crate) fn seeds(self, seeds: Seeds) -> Self {
        Self { seeds: Some(seeds), ..self }
    }
}

pub(crate) trait FromDatabase {
    fn from_database(builder: Builder) -> Self;
}

impl FromDatabase for Builder {
    fn from_database(builder: Builder) -> Self {
        builder
    }
}

impl FromDatabase for String {
    fn from_database(builder: Builder) -> Self {
        builder.name
    }
}

pub(crate) trait Outcome {}

impl Outcome for () {}

impl<E: Debug> Outcome for Result<(), E> {}

pub(crate) fn run<T: FromDatabase, F: Future<Output = R>, R: Outcome>(
    builder: fn() -> Builder,
    body: impl FnOnce(T) -> F,
) -> R {
    let mut future = pin!(body(T::from_database(builder())));
    loop {
        if let Poll::Ready(outcome) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return outcome;
        }
    }
}
