//! The statements, with the names of the schema in them.

use pgfleet_postgres::{quote_ident, quote_literal};

use crate::carried::{COLUMNS, micros, read_columns};

/// The times of a message in the outbox.
const TIMES: &str = "created_at, not_before, deliver_by";

/// The statements of an outbox.
#[derive(Debug)]
pub(super) struct Sql {
    pub(super) publish: String,
    /// The newest row of the cursor. No values.
    pub(super) newest: String,
    /// A step: n, holder, new epoch, new holder, ttl in µs, system, lo, hi, pos, top, due µs, due ord, sent.
    pub(super) step: [String; 2],
    /// New messages and the snapshot that they are seen in: lo, limit.
    pub(super) look: String,
    /// The order of an open window: lo, hi, pos, limit.
    pub(super) order: String,
    /// Messages by place: xids, seqs.
    pub(super) bodies: String,
    pub(super) lanes: String,
    pub(super) due_lanes: String,
    pub(super) lane_messages: String,
    pub(super) due_delayed: String,
    pub(super) next_due: String,
    /// Puts messages of the log aside: xids, seqs, lanes.
    pub(super) park: String,
    /// Puts delayed messages aside: dues µs, ords, lanes.
    pub(super) park_delayed: String,
    pub(super) park_key: String,
    /// Has messages of the log wait: xids, seqs, not before this µs.
    pub(super) delay: String,
    /// Gives messages of the log up: xids, seqs, lanes, reasons, attempts.
    pub(super) bury: String,
    pub(super) bury_delayed: String,
    pub(super) bury_parked: String,
    pub(super) unpark: String,
    pub(super) release_key: String,
    pub(super) retry_key: String,
    pub(super) forget_delayed: String,
    pub(super) forget_cursor: String,
    pub(super) rotate: String,
    pub(super) slot_size: String,
    /// Locks the log against writers, so that all that is in it is visible.
    pub(super) seal_lock: String,
    /// What was not carried, in order, among what waits for its time or is put aside: lo, hi, pos, top.
    pub(super) seal_park: String,
    pub(super) seal_empty: String,
    pub(super) retry: String,
    pub(super) retry_keys: String,
    pub(super) status: String,
    pub(super) parked_keys: String,
    pub(super) dead_letters: String,
}

impl Sql {
    pub(super) fn new(schema: &str) -> Self {
        let s = quote_ident(schema);
        let sequence = |name: &str| quote_literal(&format!("{s}.{name}"));
        let (slot, seq, ord) = (sequence("outbox_slot"), sequence("outbox_seq"), sequence("outbox_ord"));
        let read = read_columns("coalesce(m.not_before, m.created_at)");
        let read = format!(
            "{read}, coalesce(m.not_before <= clock_timestamp(), true), coalesce(m.deliver_by <= clock_timestamp(), false)"
        );
        let place = "m.xid::text::int8, m.seq";
        // Exactly what is not visible in `lo`: what ran then, and what had not begun. A bound by `seq` would miss rows of
        // transactions at or above xmax that ran already and had drawn a lower number.
        let since = |lo: &str, extra: &str| {
            format!(
                "SELECT * FROM {s}.outbox_messages WHERE xid >= pg_snapshot_xmax({lo}) {extra} \
                 UNION ALL \
                 SELECT * FROM {s}.outbox_messages WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip({lo}))) {extra}"
            )
        };
        let lo = "$1::text::pg_snapshot";
        let within = "AND xid < pg_snapshot_xmax($2::text::pg_snapshot) AND pg_visible_in_snapshot(xid, $2::text::pg_snapshot) \
             AND seq > $3::int8";
        let window = since(lo, within);
        let places = "unnest($1::int8[], $2::int8[]) WITH ORDINALITY AS u (x, s, nr) \
                      JOIN {s}.outbox_messages m ON m.xid = u.x::text::xid8 AND m.seq = u.s";
        let places = places.replace("{s}", &s);
        let carried = |prefix: &str| {
            format!("{COLUMNS}, {TIMES}")
                .split(", ")
                .map(|column| format!("{prefix}.{column}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let m = carried("m");
        let step = |child: usize| {
            format!(
                "INSERT INTO {s}.outbox_cursor_{child} \
                 (slot, n, epoch, holder, until, system, lo, hi, pos, top, due, due_ord, sent) \
                 SELECT {child}, c.n + 1, $3::int8, $4::text, clock_timestamp() + $5::int8 * interval '1 microsecond', $6::text, \
                        $7::text::pg_snapshot, $8::text::pg_snapshot, $9::int8, $10::int8, \
                        to_timestamp($11::int8 / 1000000.0), $12::int8, $13::int8 \
                 FROM {s}.outbox_cursor c WHERE c.n = $1::int8 AND c.holder = $2::text"
            )
        };
        Self {
            publish: format!(
                "INSERT INTO {s}.outbox_messages (slot, xid, seq, source, {no_source}, {TIMES}) \
                 SELECT coalesce(pg_catalog.pg_sequence_last_value({slot}::regclass), 0)::int2, x, s, $1::text, id::uuid, \
                        topic, type, key, data::json, correlation_id, causation_id, traceparent, tracestate, tenant, \
                        headers::json, at, CASE WHEN delay > 0 THEN at + delay * interval '1 microsecond' END, \
                        CASE WHEN within >= 0 THEN at + within * interval '1 microsecond' END \
                 FROM (SELECT nextval({seq}::regclass) s, clock_timestamp() at, a.* FROM (\
                 SELECT pg_current_xact_id() x, u.* FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], \
                 $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::int8[], $14::int8[]) AS u \
                 (id, topic, type, key, data, correlation_id, causation_id, traceparent, tracestate, tenant, headers, delay, \
                 within) OFFSET 0) a OFFSET 0) b",
                no_source = COLUMNS.replace("source, ", "")
            ),
            newest: format!(
                "SELECT n, epoch, holder, until <= clock_timestamp(), {remaining}, system, lo::text, hi::text, pos, top, \
                        CASE WHEN due = '-infinity' THEN 0 ELSE {due} END, due_ord, sent \
                 FROM {s}.outbox_cursor ORDER BY n DESC LIMIT 1",
                remaining = "CASE WHEN until <= clock_timestamp() THEN 0 \
                             ELSE (extract(epoch FROM until - clock_timestamp()) * 1000000)::int8 END",
                due = micros("due")
            ),
            step: [step(0), step(1)],
            look: format!(
                "SELECT pg_current_snapshot()::text, {place}, {read} FROM (SELECT) one LEFT JOIN LATERAL \
                 (SELECT * FROM ({since}) c ORDER BY seq LIMIT $2::int8) m ON true ORDER BY m.seq",
                since = since(lo, "")
            ),
            order: format!("SELECT {place} FROM ({window}) m ORDER BY m.seq LIMIT $4::int8"),
            bodies: format!("SELECT '', {place}, {read} FROM {places} ORDER BY u.nr"),
            lanes: format!("SELECT lane FROM {s}.outbox_parked_keys"),
            due_lanes: format!(
                "SELECT lane, attempts FROM {s}.outbox_parked_keys WHERE next_try <= clock_timestamp() \
                 ORDER BY next_try LIMIT $1::int8"
            ),
            lane_messages: format!(
                "SELECT m.lane, NULL::int8, m.ord, {read} FROM unnest($1::text[]) WITH ORDINALITY AS l (lane, nr) \
                 CROSS JOIN LATERAL (SELECT * FROM {s}.outbox_parked p WHERE p.lane = l.lane ORDER BY p.ord LIMIT $2::int8) m \
                 ORDER BY l.nr, m.ord"
            ),
            due_delayed: format!(
                "SELECT '', {due}, m.ord, {read} FROM {s}.outbox_delayed m \
                 WHERE (m.due, m.ord) > (to_timestamp($1::int8 / 1000000.0), $2::int8) AND m.due <= clock_timestamp() \
                 ORDER BY m.due, m.ord LIMIT $3::int8",
                due = micros("m.due")
            ),
            next_due: format!(
                "SELECT {wait} FROM (SELECT least(\
                 (SELECT due FROM {s}.outbox_delayed WHERE (due, ord) > (to_timestamp($1::int8 / 1000000.0), $2::int8) \
                  ORDER BY due, ord LIMIT 1), \
                 (SELECT min(next_try) FROM {s}.outbox_parked_keys)) AS at) n",
                // greatest() leaves nothings out: without the CASE nothing at all would be due at once, for ever.
                wait = "CASE WHEN at IS NOT NULL \
                        THEN (greatest(extract(epoch FROM at - clock_timestamp()), 0) * 1000000)::int8 END"
            ),
            park: format!(
                "INSERT INTO {s}.outbox_parked (lane, ord, {COLUMNS}, {TIMES}) \
                 SELECT lane, nextval({ord}::regclass), {COLUMNS}, {TIMES} FROM (SELECT l.lane, {m} FROM {places} \
                 JOIN unnest($3::text[]) WITH ORDINALITY AS l (lane, nr) ON l.nr = u.nr ORDER BY u.nr OFFSET 0) q"
            ),
            park_delayed: format!(
                "INSERT INTO {s}.outbox_parked (lane, ord, {COLUMNS}, {TIMES}) \
                 SELECT lane, nextval({ord}::regclass), {COLUMNS}, {TIMES} FROM (SELECT u.lane, {m} \
                 FROM unnest($1::int8[], $2::int8[], $3::text[]) WITH ORDINALITY AS u (due, ord, lane, nr) \
                 JOIN {s}.outbox_delayed m ON m.due = to_timestamp(u.due / 1000000.0) AND m.ord = u.ord \
                 ORDER BY u.nr OFFSET 0) q"
            ),
            park_key: format!(
                "INSERT INTO {s}.outbox_parked_keys (lane, key, attempts, next_try, last_error) \
                 SELECT lane, key, n, CASE WHEN wait >= 0 THEN clock_timestamp() + wait * interval '1 microsecond' END, error \
                 FROM unnest($1::text[], $2::text[], $3::int8[], $4::int8[], $5::text[]) AS u (lane, key, n, wait, error) \
                 ON CONFLICT (lane) DO UPDATE SET attempts = excluded.attempts, next_try = excluded.next_try, \
                 last_error = excluded.last_error"
            ),
            delay: format!(
                "INSERT INTO {s}.outbox_delayed (due, ord, {COLUMNS}, {TIMES}) \
                 SELECT greatest(q.not_before, to_timestamp($3::int8 / 1000000.0) + interval '1 microsecond'), \
                        nextval({ord}::regclass), {q} FROM (SELECT {m} FROM {places} ORDER BY u.nr OFFSET 0) q",
                q = carried("q")
            ),
            bury: format!(
                "INSERT INTO {s}.outbox_dead_letters (ord, lane, reason, attempts, {COLUMNS}, {TIMES}) \
                 SELECT nextval({ord}::regclass), lane, reason, attempts, {COLUMNS}, {TIMES} FROM (\
                 SELECT d.lane, d.reason, d.attempts, {m} FROM {places} \
                 JOIN unnest($3::text[], $4::text[], $5::int8[]) WITH ORDINALITY AS d (lane, reason, attempts, nr) \
                 ON d.nr = u.nr ORDER BY u.nr OFFSET 0) q"
            ),
            bury_delayed: format!(
                "INSERT INTO {s}.outbox_dead_letters (ord, lane, reason, attempts, {COLUMNS}, {TIMES}) \
                 SELECT nextval({ord}::regclass), lane, reason, attempts, {COLUMNS}, {TIMES} FROM (\
                 SELECT u.lane, u.reason, u.attempts, {m} \
                 FROM unnest($1::int8[], $2::int8[], $3::text[], $4::text[], $5::int8[]) WITH ORDINALITY \
                      AS u (due, ord, lane, reason, attempts, nr) \
                 JOIN {s}.outbox_delayed m ON m.due = to_timestamp(u.due / 1000000.0) AND m.ord = u.ord \
                 ORDER BY u.nr OFFSET 0) q"
            ),
            bury_parked: format!(
                "WITH gone AS (DELETE FROM {s}.outbox_parked p \
                 USING unnest($1::text[], $2::int8[], $3::text[], $4::int8[]) AS u (lane, ord, reason, attempts) \
                 WHERE p.lane = u.lane AND p.ord = u.ord RETURNING p.*, u.reason, u.attempts) \
                 INSERT INTO {s}.outbox_dead_letters (ord, lane, reason, attempts, {COLUMNS}, {TIMES}) \
                 SELECT ord, lane, reason, attempts, {COLUMNS}, {TIMES} FROM gone"
            ),
            unpark: format!(
                "DELETE FROM {s}.outbox_parked p USING unnest($1::text[], $2::int8[]) AS u (lane, ord) \
                 WHERE p.lane = u.lane AND p.ord = u.ord"
            ),
            release_key: format!("DELETE FROM {s}.outbox_parked_keys WHERE lane = ANY ($1::text[])"),
            retry_key: format!(
                "UPDATE {s}.outbox_parked_keys k SET attempts = u.n, \
                 next_try = CASE WHEN u.wait >= 0 THEN clock_timestamp() + u.wait * interval '1 microsecond' END, \
                 last_error = coalesce(u.error, k.last_error) \
                 FROM unnest($1::text[], $2::int8[], $3::int8[], $4::text[]) AS u (lane, n, wait, error) WHERE k.lane = u.lane"
            ),
            forget_delayed: format!(
                "DELETE FROM {s}.outbox_delayed WHERE (due, ord) > (to_timestamp($1::int8 / 1000000.0), $2::int8) \
                 AND (due, ord) <= (to_timestamp($3::int8 / 1000000.0), $4::int8)"
            ),
            forget_cursor: format!("SELECT {s}.outbox_rotate_cursor()"),
            rotate: format!("SELECT {s}.outbox_rotate()"),
            slot_size: format!(
                "SELECT pg_relation_size(CASE coalesce(pg_catalog.pg_sequence_last_value({slot}::regclass), 0) \
                 WHEN 0 THEN {zero}::regclass ELSE {one}::regclass END)",
                zero = sequence("outbox_messages_0"),
                one = sequence("outbox_messages_1")
            ),
            seal_lock: format!("SET LOCAL lock_timeout = '2s'; LOCK TABLE {s}.outbox_messages IN SHARE MODE"),
            seal_park: format!(
                "WITH left_over AS MATERIALIZED (SELECT m.*, coalesce('k' || m.key, 'i' || m.id) AS lane, \
                      coalesce(m.not_before > clock_timestamp(), false) AS waits FROM {s}.outbox_messages m \
                      WHERE m.seq > $4::int8 OR NOT pg_visible_in_snapshot(m.xid, $1::text::pg_snapshot) \
                      AND NOT coalesce(pg_visible_in_snapshot(m.xid, $2::text::pg_snapshot) AND m.seq <= $3::int8, false) \
                      ORDER BY coalesce(pg_visible_in_snapshot(m.xid, $2::text::pg_snapshot) AND m.seq <= $4::int8, false) \
                      DESC, m.seq), \
                 later AS (INSERT INTO {s}.outbox_delayed (due, ord, {COLUMNS}, {TIMES}) \
                      SELECT not_before, nextval({ord}::regclass), {COLUMNS}, {TIMES} FROM left_over WHERE waits), \
                 now AS (INSERT INTO {s}.outbox_parked (lane, ord, {COLUMNS}, {TIMES}) \
                      SELECT lane, nextval({ord}::regclass), {COLUMNS}, {TIMES} FROM left_over WHERE NOT waits) \
                 INSERT INTO {s}.outbox_parked_keys (lane, key, attempts, next_try, last_error) \
                 SELECT DISTINCT ON (lane) lane, key, 0, clock_timestamp(), 'the database was restored' \
                 FROM left_over WHERE NOT waits ON CONFLICT (lane) DO NOTHING"
            ),
            seal_empty: format!("DELETE FROM {s}.outbox_messages"),
            retry: format!(
                "WITH gone AS (DELETE FROM {s}.outbox_dead_letters d WHERE CASE $1::text WHEN 'all' THEN true \
                 WHEN 'key' THEN d.key = $2::text ELSE d.id = ANY ($3::text[]::uuid[]) END RETURNING d.*), \
                 back AS (INSERT INTO {s}.outbox_parked (lane, ord, {COLUMNS}, {TIMES}) \
                 SELECT lane, ord, {COLUMNS}, created_at, not_before, NULL FROM gone) \
                 SELECT lane, min(key), count(*)::text, (array_agg(reason ORDER BY ord))[1] FROM gone GROUP BY lane"
            ),
            retry_keys: format!(
                "INSERT INTO {s}.outbox_parked_keys (lane, key, attempts, next_try, last_error) \
                 SELECT lane, key, 0, clock_timestamp(), error FROM unnest($1::text[], $2::text[], $3::text[]) \
                 AS u (lane, key, error) \
                 ON CONFLICT (lane) DO UPDATE SET attempts = 0, next_try = clock_timestamp()"
            ),
            status: format!(
                "WITH c AS (SELECT * FROM {s}.outbox_cursor ORDER BY n DESC LIMIT 1), \
                 w AS (SELECT m.created_at, m.not_before FROM c CROSS JOIN LATERAL (\
                 SELECT * FROM {s}.outbox_messages WHERE xid >= pg_snapshot_xmax(c.lo) \
                 UNION ALL SELECT * FROM {s}.outbox_messages WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip(c.lo)))) m \
                 WHERE NOT (c.hi IS NOT NULL AND m.seq <= c.pos AND pg_visible_in_snapshot(m.xid, c.hi))) \
                 SELECT (SELECT count(*) FROM w)::text, \
                        (SELECT {oldest} FROM w)::text, \
                        (SELECT count(*) FROM {s}.outbox_delayed d, c WHERE (d.due, d.ord) > (c.due, c.due_ord))::text, \
                        (SELECT count(*) FROM {s}.outbox_parked)::text, \
                        (SELECT count(*) FROM {s}.outbox_parked_keys)::text, \
                        (SELECT count(*) FROM {s}.outbox_dead_letters)::text, \
                        c.sent::text, c.holder, (c.until > clock_timestamp())::text, c.epoch::text, {at}::text, \
                        (pg_total_relation_size({zero}::regclass) + pg_total_relation_size({one}::regclass))::text \
                 FROM c",
                oldest = micros("min(created_at)"),
                at = micros("c.at"),
                zero = sequence("outbox_messages_0"),
                one = sequence("outbox_messages_1")
            ),
            parked_keys: format!(
                "SELECT k.key, k.attempts::text, {next}::text, {since}::text, k.last_error, \
                        (SELECT count(*) FROM {s}.outbox_parked p WHERE p.lane = k.lane)::text, k.lane \
                 FROM {s}.outbox_parked_keys k ORDER BY k.since LIMIT $1::int8",
                next = micros("k.next_try"),
                since = micros("k.since")
            ),
            dead_letters: format!(
                "SELECT m.id::text, m.topic, m.type, m.key, m.attempts::text, m.reason, {dead}::text, {created}::text, \
                        m.data::text \
                 FROM {s}.outbox_dead_letters m ORDER BY m.ord LIMIT $1::int8",
                dead = micros("m.dead_at"),
                created = micros("m.created_at")
            ),
        }
    }
}
