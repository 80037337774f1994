//! The manifest, provisioning, isolation and the control database.

pub mod manifest;
