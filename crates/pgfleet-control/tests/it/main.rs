//! Provisioning and isolation against real servers: PostgreSQL 15 and 18, with and without a
//! superuser.

mod isolation;
mod provision;
mod support;
