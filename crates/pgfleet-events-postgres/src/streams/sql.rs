//! The statements, with the schema's name in them.

use pgfleet_postgres::{quote_ident, quote_literal};

use super::read::CONDITIONS;
use super::{rows, tick};

#[derive(Debug)]
pub(crate) struct Sql {
    pub(super) append: String,
    /// To one stream, waiting for its lock.
    pub(super) append_one: String,
    /// One event, to a stream whose lock is free.
    pub(super) append_event: String,
    pub(super) read_forward: String,
    pub(super) read_backward: String,
    pub(super) main: String,
    pub(super) late: String,
    pub(super) ticks_from: String,
    pub(super) next_ticks: String,
    pub(super) make_tick: String,
    pub(super) tick_for_others: String,
    pub(super) last_tick: String,
    pub(super) tick_at: String,
    pub(super) info: String,
    pub(super) list: String,
    pub(super) remove: String,
    pub(super) archive: String,
}

impl Sql {
    pub(super) fn new(schema: &str) -> Self {
        let s = quote_ident(schema);
        let seq = quote_literal(&format!("{s}.events_seq"));
        let (ticks, events) = (tick::COLUMNS, rows::COLUMNS);
        // The first tick that holds an event: none before it does.
        let tick_of = format!(
            "(SELECT CASE WHEN t.run_length = 1 THEN t.tick ELSE t.run_ticks[width_bucket(e.seq - 1, t.run_tops) + 1] END \
             FROM {s}.ticks t WHERE t.epoch = (SELECT max(c.epoch) FROM {s}.cluster c WHERE c.floor < e.seq) \
             AND t.hi_next > e.xid AND t.hi_seq >= e.seq AND (t.cut IS NULL OR t.cut >= e.seq) \
             AND pg_visible_in_snapshot(e.xid, t.hi) ORDER BY t.hi_next, t.tick LIMIT 1)"
        );
        // Kept as a condition by itself: nothing else finds the ends of a stream in two looks at its index.
        let info = format!(
            "SELECT f.stream, f.version, l.version, f.at, l.at, \
             coalesce((SELECT k.archived FROM {s}.stream_states k WHERE k.stream = f.stream), false)"
        );
        let ends = |name: &str| {
            format!(
                "(SELECT e.stream, e.version, e.at FROM {s}.events e WHERE e.stream = {name} ORDER BY e.version LIMIT 1) f, \
                 LATERAL (SELECT e.version, e.at FROM {s}.events e WHERE e.stream = {name} ORDER BY e.version DESC LIMIT 1) l"
            )
        };
        Self {
            append: format!("SELECT {s}.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"),
            append_one: format!("SELECT {s}.append_one($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"),
            // The levels fix the order: the lock, the transaction's id, the version, the number of the event. Whoever
            // had the lock a moment ago may not be seen yet; then the version is taken, and nothing is appended.
            append_event: format!(
                "INSERT INTO {s}.events (seq, xid, version, at, id, part, stream, type, data, correlation_id, causation_id, \
                 traceparent, tracestate, tenant, headers) \
                 SELECT nextval({seq}), h.xid, h.have + 1, h.at, $4, $2, $1, $5, $6, $7, $8, $9, $10, $11, $12 \
                 FROM (SELECT a.xid, a.at, coalesce((SELECT e.version FROM {s}.events e WHERE e.stream = $1 \
                 ORDER BY e.version DESC LIMIT 1), 0) AS have \
                 FROM (SELECT pg_current_xact_id() AS xid, clock_timestamp() AS at \
                 WHERE pg_try_advisory_xact_lock(hashtextextended($1, 7)) OFFSET 0) AS a OFFSET 0) AS h \
                 WHERE $3::bigint IN (-1, h.have) AND NOT EXISTS (SELECT FROM {s}.stream_states k WHERE k.stream = $1) \
                 ON CONFLICT (stream, version) DO NOTHING RETURNING version - 1"
            ),
            read_forward: format!(
                "SELECT {events}, {tick_of} FROM {s}.events e WHERE e.stream = $1 AND e.version >= $2 \
                 ORDER BY e.version LIMIT $3"
            ),
            read_backward: format!(
                "SELECT {events}, {tick_of} FROM {s}.events e WHERE e.stream = $1 AND e.version <= $2 \
                 ORDER BY e.version DESC LIMIT $3"
            ),
            main: format!(
                "SELECT {events} FROM {s}.events e WHERE e.seq > $1 AND e.seq <= $2 \
                 AND pg_visible_in_snapshot(e.xid, $3) AND (e.seq > $4 OR NOT pg_visible_in_snapshot(e.xid, $5))\
                 {CONDITIONS} ORDER BY e.seq LIMIT $6"
            ),
            late: format!("SELECT {events} FROM {s}.events e WHERE e.seq = ANY ($1){CONDITIONS}"),
            ticks_from: format!("SELECT {ticks} FROM {s}.ticks_behind($1::bigint - 1, $2) ORDER BY tick"),
            next_ticks: format!("SELECT {ticks} FROM {s}.next_ticks($1, $2, $3)"),
            make_tick: format!("SELECT {ticks} FROM {s}.make_tick($1)"),
            tick_for_others: format!("SELECT {s}.tick_for_others($1)"),
            last_tick: format!("SELECT {ticks} FROM {s}.ticks ORDER BY tick DESC LIMIT 1"),
            tick_at: format!(
                "SELECT (SELECT coalesce(t.run_ticks[1], t.tick) FROM {s}.ticks t \
                 WHERE t.tick = (SELECT min(a.tick) FROM {s}.ticks a WHERE a.at >= $1))"
            ),
            info: format!("{info} FROM {}", ends("$1")),
            list: format!(
                "WITH RECURSIVE names AS ( \
                 (SELECT e.stream FROM {s}.events e WHERE e.stream > $2 AND e.stream >= $1 ORDER BY e.stream LIMIT 1) \
                 UNION ALL SELECT (SELECT e.stream FROM {s}.events e WHERE e.stream > n.stream ORDER BY e.stream LIMIT 1) \
                 FROM names n WHERE starts_with(n.stream, $1)), \
                 page AS (SELECT stream FROM names WHERE starts_with(stream, $1) LIMIT $3) \
                 {info} FROM page, LATERAL {} ORDER BY 1",
                ends("page.stream")
            ),
            remove: format!("SELECT {s}.remove_events($1, $2, $3)"),
            archive: format!("SELECT {s}.archive_stream($1, $2)"),
        }
    }
}
