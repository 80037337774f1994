//! What is known of the statements that a connection has run before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_postgres::types::{Kind, Type};
use tokio_postgres::{Client, Statement};

use crate::quote_literal;

/// How many statements are remembered per connection. A program that builds its SQL from values would fill the memory
/// of the server otherwise.
const MOST: usize = 512;

/// The statements of one connection.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<HashMap<Box<str>, Prepared>>);

/// A statement that was run before.
#[derive(Debug, Clone)]
pub(super) enum Prepared {
    /// The server knows it by name.
    Named(Statement),
    /// The types of its values are known.
    Typed(Arc<[Type]>),
}

impl Cache {
    pub(super) fn get(&self, sql: &str) -> Option<Prepared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(sql).cloned()
    }

    pub(super) fn keep(&self, sql: &str, prepared: Prepared) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST
            && let Some(any) = known.keys().next().cloned()
        {
            known.remove(&any);
        }
        known.insert(sql.into(), prepared);
    }

    pub(super) fn forget(&self, sql: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(sql);
    }
}

/// Asks for the types of a statement's values, leaving nothing behind: in one message, which a pooler hands to one
/// session.
pub(super) async fn types_of(client: &Client, sql: &str) -> Result<Arc<[Type]>, tokio_postgres::Error> {
    let name = format!("pgfleet_{:016x}", rand::random::<u64>());
    let messages = client
        .simple_query(&format!(
            "PREPARE {name} AS {sql}\n; \
             SELECT t.oid::int8, t.typname, n.nspname, t.typtype, \
                    (SELECT pg_catalog.string_agg(e.enumlabel, E'\\x01' ORDER BY e.enumsortorder) \
                     FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid) \
             FROM pg_catalog.pg_prepared_statements s, \
                  pg_catalog.unnest(s.parameter_types::oid[]) WITH ORDINALITY AS p (oid, at), \
                  pg_catalog.pg_type t, pg_catalog.pg_namespace n \
             WHERE s.name = {} AND t.oid = p.oid AND n.oid = t.typnamespace ORDER BY p.at; \
             DEALLOCATE {name}",
            quote_literal(&name)
        ))
        .await?;
    let rows = messages.iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(rows
        .map(|row| {
            let text = |at: usize| row.get(at).unwrap_or_default();
            let oid = text(0).parse().unwrap_or_default();
            Type::from_oid(oid).unwrap_or_else(|| {
                let kind = match row.get(4) {
                    Some(labels) if text(3) == "e" => Kind::Enum(labels.split('\x01').map(str::to_owned).collect()),
                    _ => Kind::Simple,
                };
                Type::new(text(1).to_owned(), oid, kind, text(2).to_owned())
            })
        })
        .collect())
}
