//! Talking to PostgreSQL: connect, TLS, advisory locks, quoting, errors.
