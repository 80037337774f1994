//! Tests that run real servers.
#![cfg(feature = "testing")]

mod brokers;
mod cluster;
mod crash;
mod databases;
mod fixture;
mod own;
mod place;
mod pooler;
mod replica;
mod shared;
