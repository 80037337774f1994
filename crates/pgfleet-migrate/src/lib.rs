//! Plans, applies, reverts and records migrations and seeds.
