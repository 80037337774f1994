//! The text of SQL: lexer, statements, annotations, file layouts and checksums.
//!
//! Everything here is a pure function of text, but for [`layout::read_folder`] and [`layout::Script::read`], which read
//! files. Nothing is sent anywhere, and SQL is understood only as far as running it needs: where statements begin and
//! end, what must not stand in a migration, and whether two texts mean the same.

pub mod annotation;
pub mod check;
pub mod checksum;
pub mod layout;
pub mod lexer;
pub mod placeholder;
pub mod position;
pub mod statement;
pub mod version;
