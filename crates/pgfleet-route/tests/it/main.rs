//! The router against real servers: replicas, tenants, budgets.

mod fleet;
mod replicas;
mod support;
mod tenants;
