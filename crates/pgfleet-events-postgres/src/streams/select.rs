//! The conditions of a [`Filter`] as SQL.

use pgfleet_events::Filter;
use tokio_postgres::types::ToSql;

use crate::wire::At;

/// Conditions, and the values that they name.
#[derive(Default)]
pub(super) struct Conditions {
    pub(super) sql: String,
    values: Vec<Box<dyn ToSql + Sync + Send>>,
}

impl Conditions {
    /// Those of a filter; their values are numbered from `first` on.
    pub(super) fn of(filter: &Filter, first: usize) -> Self {
        let mut this = Self::default();
        let add = |this: &mut Self, text: &str, value: Box<dyn ToSql + Sync + Send>| {
            let number = format!("${}", first + this.values.len());
            this.sql.push_str(&text.replace('?', &number));
            this.values.push(value);
        };
        if let Some(stream) = &filter.stream {
            add(&mut this, " AND e.stream = ?", Box::new(stream.to_string()));
        }
        if let Some(prefix) = &filter.stream_prefix {
            add(&mut this, " AND starts_with(e.stream, ?)", Box::new(prefix.to_string()));
        }
        match &filter.kinds[..] {
            [] => {}
            [kind] => add(&mut this, " AND e.type = ?", Box::new(kind.to_string())),
            kinds => {
                let kinds: Vec<String> = kinds.iter().map(ToString::to_string).collect();
                add(&mut this, " AND e.type = ANY (?)", Box::new(kinds));
            }
        }
        if let Some(id) = &filter.correlation_id {
            add(&mut this, " AND e.correlation_id = ?", Box::new(id.to_string()));
        }
        if let Some(since) = filter.since {
            add(&mut this, " AND e.at >= ?", Box::new(At(since)));
        }
        if let Some(until) = filter.until {
            add(&mut this, " AND e.at < ?", Box::new(At(until)));
        }
        if let Some((part, parts)) = filter.part {
            add(&mut this, " AND ((e.part::bigint & 4294967295) * ?::bigint) >> 32", Box::new(i64::from(parts.max(1))));
            add(&mut this, " = ?::bigint", Box::new(i64::from(part)));
        }
        this
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &(dyn ToSql + Sync)> {
        self.values.iter().map(|value| &**value as &(dyn ToSql + Sync))
    }
}
