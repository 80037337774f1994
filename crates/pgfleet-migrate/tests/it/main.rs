//! The engine against a real PostgreSQL: each test has a database of its own.

mod announce;
mod apply;
mod code;
mod concurrency;
mod concurrently;
mod crash;
mod crash_whole;
mod files;
mod hand_written;
mod history;
mod layouts;
mod newest;
mod no_transaction;
mod own_transactions;
mod pooler;
mod repair;
mod repeatable;
mod retry;
mod revert;
mod seeds;
mod sets;
mod stop;
mod support;
mod tenants;
mod worker;
