//! A local PostgreSQL: finds or fetches the server, starts, stops and keeps it.
