//! The statements, with the names of the schema in them.

use pgfleet_postgres::quote_ident;

use crate::carried::{COLUMNS, micros, read_columns};

/// The statements of an inbox.
#[derive(Debug)]
pub(super) struct Sql {
    /// Notes messages: consumer, ids, days, lanes, days remembered.
    pub(super) begin: String,
    /// Puts a message aside, behind those of its lane: consumer, lane, and the message's columns.
    pub(super) park: String,
    /// Puts a lane aside: consumer, lane, key, attempts, wait µs, error.
    pub(super) park_key: String,
    /// Gives a message up: consumer, lane, attempts, reason, and the message's columns.
    pub(super) bury: String,
    pub(super) due_lane: String,
    pub(super) next_due: String,
    pub(super) head: String,
    pub(super) lock_lane: String,
    pub(super) done: String,
    pub(super) retry_key: String,
    pub(super) bury_parked: String,
    pub(super) release_if_empty: String,
    pub(super) retry: String,
    pub(super) forget: String,
    pub(super) status: String,
    pub(super) parked_keys: String,
}

impl Sql {
    pub(super) fn new(schema: &str) -> Self {
        let s = quote_ident(schema);
        let message = |first: usize| {
            let place = |at: usize| first + at;
            format!(
                "${}::text::uuid, ${}::text, ${}::text, ${}::text, ${}::text, ${}::text::json, ${}::text, ${}::text, \
                 ${}::text, ${}::text, ${}::text, ${}::text::json, to_timestamp(${}::int8 / 1000000.0)",
                place(0),
                place(1),
                place(2),
                place(3),
                place(4),
                place(5),
                place(6),
                place(7),
                place(8),
                place(9),
                place(10),
                place(11),
                place(12)
            )
        };
        let read = read_columns("m.written_at").replace("::int8", "::int8::text");
        Self {
            begin: format!(
                "WITH t AS (SELECT floor(extract(epoch FROM clock_timestamp()) / 86400)::int AS today), \
                 g AS MATERIALIZED (SELECT u.id::uuid AS id, u.day, u.lane, u.nr, \
                      u.day >= t.today - $5::int8 AND u.day <= t.today + 1 AS fits \
                      FROM t, unnest($2::text[], $3::int8[], $4::text[]) WITH ORDINALITY AS u (id, day, lane, nr)), \
                 i AS (INSERT INTO {s}.inbox_messages (slot, consumer, message_id, day) \
                      SELECT (day % 10)::int2, $1::text, id, day::int \
                      FROM (SELECT DISTINCT ON (id) id, day FROM g WHERE fits ORDER BY id) d \
                      ON CONFLICT DO NOTHING RETURNING message_id), \
                 p AS MATERIALIZED (SELECT lane FROM {s}.inbox_parked_keys \
                      WHERE consumer = $1::text AND lane = ANY ($4::text[]) ORDER BY lane FOR SHARE) \
                 SELECT g.fits::text, (i.message_id IS NOT NULL)::text, (p.lane IS NOT NULL)::text \
                 FROM g LEFT JOIN i ON i.message_id = g.id LEFT JOIN p ON p.lane = g.lane ORDER BY g.nr"
            ),
            park: format!(
                "INSERT INTO {s}.inbox_parked (consumer, lane, {COLUMNS}, written_at) \
                 VALUES ($1::text, $2::text, {})",
                message(3)
            ),
            park_key: format!(
                "INSERT INTO {s}.inbox_parked_keys (consumer, lane, key, attempts, next_try, last_error) \
                 VALUES ($1::text, $2::text, $3::text, $4::int8, \
                 CASE WHEN $5::int8 >= 0 THEN clock_timestamp() + $5::int8 * interval '1 microsecond' END, $6::text) \
                 ON CONFLICT (consumer, lane) DO NOTHING"
            ),
            bury: format!(
                "INSERT INTO {s}.inbox_dead_letters (consumer, lane, attempts, reason, {COLUMNS}, written_at) \
                 VALUES ($1::text, $2::text, $3::int8, $4::text, {}) ON CONFLICT (consumer, id) DO NOTHING",
                message(5)
            ),
            due_lane: format!(
                "SELECT lane, attempts::text FROM {s}.inbox_parked_keys \
                 WHERE consumer = $1::text AND next_try <= clock_timestamp() ORDER BY next_try LIMIT 1 \
                 FOR UPDATE SKIP LOCKED"
            ),
            next_due: format!(
                "SELECT CASE WHEN min(next_try) IS NOT NULL \
                 THEN (greatest(extract(epoch FROM min(next_try) - clock_timestamp()), 0) * 1000000)::int8::text END \
                 FROM {s}.inbox_parked_keys WHERE consumer = $1::text"
            ),
            head: format!(
                "SELECT m.ord::text, {read} FROM {s}.inbox_parked m WHERE m.consumer = $1::text AND m.lane = $2::text \
                 ORDER BY m.ord LIMIT 1"
            ),
            lock_lane: format!(
                "SELECT attempts::text FROM {s}.inbox_parked_keys \
                 WHERE consumer = $1::text AND lane = $2::text AND attempts = $3::int8 FOR UPDATE"
            ),
            done: format!(
                "DELETE FROM {s}.inbox_parked WHERE consumer = $1::text AND lane = $2::text AND ord = $3::int8"
            ),
            retry_key: format!(
                "UPDATE {s}.inbox_parked_keys SET attempts = $3::int8, last_error = coalesce($5::text, last_error), \
                 next_try = CASE WHEN $4::int8 >= 0 THEN clock_timestamp() + $4::int8 * interval '1 microsecond' END \
                 WHERE consumer = $1::text AND lane = $2::text"
            ),
            bury_parked: format!(
                "WITH gone AS (DELETE FROM {s}.inbox_parked \
                 WHERE consumer = $1::text AND lane = $2::text AND ord = $3::int8 RETURNING *) \
                 INSERT INTO {s}.inbox_dead_letters (consumer, lane, ord, attempts, reason, {COLUMNS}, written_at) \
                 SELECT consumer, lane, ord, $4::int8, $5::text, {COLUMNS}, written_at FROM gone \
                 ON CONFLICT (consumer, id) DO NOTHING"
            ),
            release_if_empty: format!(
                "DELETE FROM {s}.inbox_parked_keys k WHERE consumer = $1::text AND lane = $2::text \
                 AND NOT EXISTS (SELECT FROM {s}.inbox_parked p WHERE p.consumer = k.consumer AND p.lane = k.lane)"
            ),
            retry: format!(
                "WITH gone AS (DELETE FROM {s}.inbox_dead_letters d WHERE consumer = $1::text AND CASE $2::text \
                 WHEN 'all' THEN true WHEN 'key' THEN d.key = $3::text ELSE d.id = ANY ($4::text[]::uuid[]) END RETURNING d.*), \
                 keys AS (INSERT INTO {s}.inbox_parked_keys (consumer, lane, key, attempts, next_try, last_error) \
                 SELECT consumer, lane, min(key), 0, clock_timestamp(), min(reason) FROM gone GROUP BY consumer, lane \
                 ON CONFLICT (consumer, lane) DO UPDATE SET attempts = 0, next_try = clock_timestamp()), \
                 back AS (INSERT INTO {s}.inbox_parked (consumer, lane, ord, {COLUMNS}, written_at) \
                 SELECT consumer, lane, ord, {COLUMNS}, written_at FROM gone) \
                 SELECT count(*)::text, count(DISTINCT lane)::text FROM gone"
            ),
            forget: format!("SELECT {s}.inbox_forget()::text"),
            status: format!(
                "SELECT (SELECT count(*) FROM {s}.inbox_messages WHERE consumer = $1::text)::text, \
                 (SELECT count(*) FROM {s}.inbox_parked WHERE consumer = $1::text)::text, \
                 (SELECT count(*) FROM {s}.inbox_parked_keys WHERE consumer = $1::text)::text, \
                 (SELECT count(*) FROM {s}.inbox_dead_letters WHERE consumer = $1::text)::text, \
                 (SELECT {since}::text FROM {s}.inbox_parked_keys WHERE consumer = $1::text)",
                since = micros("min(since)")
            ),
            parked_keys: format!(
                "SELECT k.key, k.attempts::text, {next}::text, {since}::text, k.last_error, \
                 (SELECT count(*) FROM {s}.inbox_parked p WHERE p.consumer = k.consumer AND p.lane = k.lane)::text \
                 FROM {s}.inbox_parked_keys k WHERE k.consumer = $1::text ORDER BY k.since LIMIT $2::int8",
                next = micros("k.next_try"),
                since = micros("k.since")
            ),
        }
    }
}
