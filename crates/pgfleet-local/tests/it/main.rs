//! Tests that run real servers.
#![cfg(feature = "testing")]

mod shared;
