//! Against a real server.

mod config;
mod conformance;
mod consumers;
mod crash;
mod following;
mod gaps;
mod inbox;
mod keeper;
mod load;
mod moves;
mod outbox;
mod place;
mod projections;
mod queues;
mod streams;
mod support;
mod transactions;
mod wake;
