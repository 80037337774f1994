//! A service against a real server.

mod connections;
mod errors;
mod events;
mod lending;
mod messages;
mod start;
mod support;
mod tenant_seeds;
mod test_databases;
mod test_processes;
mod values_ids;
mod values_money;
mod values_page;
mod values_retry;
mod values_support;
mod values_table;
mod values_time;
