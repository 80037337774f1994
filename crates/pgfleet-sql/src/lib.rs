//! The text of SQL: lexer, statements, annotations, file layouts and checksums.
