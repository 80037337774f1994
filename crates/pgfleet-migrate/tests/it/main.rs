//! The engine against a real PostgreSQL: each test has a database of its own.

mod apply;
mod support;
