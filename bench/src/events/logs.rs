//! Who else appends to streams: a bare table, emmett and message-db.
//!
//! message-db's function is called with a prepared statement, in one round trip; it has no batches, so that one is a call
//! for each message. emmett's client sends text that is parsed each time, between BEGIN and COMMIT: that is done here, too,
//! without what the client itself costs ([`emmett`](super::emmett) has that). Beside it its function is shown as a client could
//! call it that prepares its statements, which is less than there is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::store::{self, Plain};
use super::{Bench, DATA, append::STREAMS};

/// The same columns and the same indexes as ours, and a unique stream and version; nothing is locked or looked at before.
const LIMIT_TABLE: &str = "CREATE SEQUENCE limit_seq; CREATE TABLE limit_events (LIKE event_streaming.events INCLUDING DEFAULTS INCLUDING INDEXES)";

/// Somebody who is measured.
pub(super) struct Kind {
    pub(super) name: &'static str,
    append: Call,
    count: &'static str,
}

/// How events are appended.
enum Call {
    /// A statement that appends `$3` to the stream `$1`, which has `$2` events.
    Prepared(&'static str),
    /// As emmett's client.
    Emmett,
}

pub(super) const LIMIT: Kind = Kind {
    name: "limit: INSERT, same indexes",
    append: Call::Prepared(
        "INSERT INTO limit_events (stream, part, version, xid, seq, at, id, type, data) \
         SELECT $1, 0, $2 + o, pg_current_xact_id(), nextval('limit_seq'), clock_timestamp(), gen_random_uuid(), 'Booked', p::jsonb \
         FROM unnest($3::text[]) WITH ORDINALITY AS t (p, o)",
    ),
    count: "SELECT count(*) FROM limit_events",
};

pub(super) const EMMETT: Kind =
    Kind { name: "emmett's statements", append: Call::Emmett, count: "SELECT count(*) FROM emt_messages" };

pub(super) const EMMETT_PREPARED: Kind = Kind {
    name: "emmett's function, prepared",
    append: Call::Prepared(
        "SELECT success FROM emt_append_to_stream( \
         ARRAY(SELECT gen_random_uuid()::text FROM unnest($3::text[])), $3::text[]::jsonb[], \
         array_fill('{}'::jsonb, ARRAY[cardinality($3)]), array_fill('1'::text, ARRAY[cardinality($3)]), \
         array_fill('Booked'::text, ARRAY[cardinality($3)]), array_fill('E'::text, ARRAY[cardinality($3)]), \
         $1::text, 'order', $2::bigint, 'emt:default')",
    ),
    count: "SELECT count(*) FROM emt_messages",
};

pub(super) const MESSAGE_DB: Kind = Kind {
    name: "message-db",
    append: Call::Prepared(
        "SELECT message_store.write_message(gen_random_uuid()::varchar, $1::text, 'Booked', p::jsonb, NULL, $2::bigint + o - 2) \
         FROM unnest($3::text[]) WITH ORDINALITY AS t (p, o)",
    ),
    count: "SELECT count(*) FROM message_store.messages",
};

/// Connections to a log of somebody else's, one for each writer.
pub(super) struct Log {
    kind: &'static Kind,
    plain: Vec<Arc<Plain>>,
}

impl Log {
    /// Opens the bare table, which is made in a database of ours.
    pub(super) fn limit(bench: &Bench<'_>, database: &str, writers: usize) -> Result<Arc<Self>> {
        bench.server.execute(database, &[LIMIT_TABLE.to_owned()])?;
        Self::open(bench, &LIMIT, database, writers)
    }

    /// Makes a database with a peer's tables in it.
    pub(super) fn peer(
        bench: &Bench<'_>,
        kind: &'static Kind,
        name: &str,
        writers: usize,
    ) -> Result<(String, Arc<Self>)> {
        let (word, schema) = match kind.name {
            name if name == MESSAGE_DB.name => ("message_db", &bench.options.message_db),
            name if name == EMMETT.name => ("emmett", &bench.options.emmett),
            _ => ("emmett_prepared", &bench.options.emmett),
        };
        let database = format!("{name}_{word}");
        store::with_schema(bench, &database, schema)?;
        // message-db's functions name its tables without their schema.
        let path = format!("ALTER DATABASE {database} SET search_path = message_store, public");
        bench.server.execute("postgres", &[path])?;
        let log = Self::open(bench, kind, &database, writers)?;
        Ok((database, log))
    }

    fn open(bench: &Bench<'_>, kind: &'static Kind, database: &str, writers: usize) -> Result<Arc<Self>> {
        let url = bench.server.url(database);
        let mut statements = vec![kind.count];
        if let Call::Prepared(sql) = kind.append {
            statements.push(sql);
        }
        bench.runtime.block_on(async {
            let mut plain = Vec::new();
            for _ in 0..writers {
                plain.push(Arc::new(Plain::open(&url, &statements).await?));
            }
            Ok(Arc::new(Self { kind, plain }))
        })
    }

    /// As [`append`](super::append::append) does it: each writer has streams of its own and goes round in them.
    pub(super) async fn append(&self, batch: usize, events: usize, round: usize) -> Result<Duration> {
        let before = self.count().await?;
        let began = Instant::now();
        let writers = self.plain.len();
        let tasks: Vec<_> = (0..writers)
            .map(|writer| {
                let (plain, call) = (self.plain[writer].clone(), &self.kind.append);
                tokio::spawn(async move {
                    let streams = STREAMS / writers;
                    for number in 0..events / writers / batch {
                        let stream = format!("order-{round}-{writer}-{}", number % streams);
                        let version = i64::try_from(number / streams * batch)?;
                        match call {
                            Call::Prepared(sql) => {
                                plain.query(sql, &[&stream, &version, &vec![DATA; batch]]).await?;
                            }
                            Call::Emmett => {
                                plain.client().batch_execute("BEGIN").await?;
                                plain.client().simple_query(&emmett_call(&stream, version, batch)).await?;
                                plain.client().batch_execute("COMMIT").await?;
                            }
                        }
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        for task in tasks {
            task.await??;
        }
        let took = began.elapsed();
        let added = self.count().await? - before;
        ensure!(added == i64::try_from(events)?, "{} has {added} of {events} events", self.kind.name);
        Ok(took)
    }

    async fn count(&self) -> Result<i64> {
        let rows = self.plain[0].query(self.kind.count, &[]).await?;
        Ok(rows.first().context("no count")?.get(0))
    }
}

/// What emmett's client puts together for a batch.
fn emmett_call(stream: &str, version: i64, batch: usize) -> String {
    let ids: Vec<String> = (0..batch).map(|_| format!("{:032x}", rand::random::<u128>())).collect();
    let list = |of: &dyn Fn(&String) -> String| ids.iter().map(of).collect::<Vec<_>>().join(",");
    format!(
        "SELECT * FROM emt_append_to_stream(ARRAY[{}]::text[], ARRAY[{}]::jsonb[], ARRAY[{}]::jsonb[], ARRAY[{}]::text[], \
         ARRAY[{}]::text[], ARRAY[{}]::text[], '{stream}'::text, 'order'::text, {version}::bigint, 'emt:default'::text)",
        list(&|id| format!("'{id}'")),
        list(&|_| format!("'{DATA}'")),
        list(&|id| format!(r#"'{{"messageId":"{id}"}}'"#)),
        list(&|_| "'1'".to_owned()),
        list(&|_| "'Booked'".to_owned()),
        list(&|_| "'E'".to_owned()),
    )
}
