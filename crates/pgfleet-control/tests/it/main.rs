//! Provisioning and isolation against real servers: PostgreSQL 15 and 18, with and without a
//! superuser.

mod access;
mod chain;
mod chain_broker;
mod directory;
mod events;
mod fleet;
mod isolation;
mod isolation_of_tenants;
mod leaving;
mod life;
mod limits;
mod made_strings;
mod moves;
mod moves_in_rollouts;
mod provision;
mod replaced;
mod residents;
mod rollouts;
mod rotation;
mod sharers;
mod support;
mod templates;
mod tenants;
mod unseen;
