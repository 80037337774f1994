//! The statements, with the schema's name in them.

use pgfleet_postgres::{quote_ident, quote_literal};

/// What is said of a message, as [`rows`](super::rows) reads it.
const MESSAGE: &str = "seq, attempt, enqueued_at, id, priority, type, data, key, correlation_id, causation_id, traceparent, tracestate, \
                       tenant, headers";

/// How many messages a pack has at most. The tables of queues rely on it.
const PACK: usize = 128;

/// By how much one number that is drawn for messages is above the one before, as the sequence `queue_seq` has it.
pub(super) const STEP: usize = 1024;

#[derive(Debug)]
pub(super) struct Sql {
    pub(super) open: String,
    pub(super) put: String,
    pub(super) put_plain: String,
    pub(super) put_packed: String,
    pub(super) take: String,
    pub(super) done: String,
    pub(super) failed: String,
    pub(super) extend: String,
    pub(super) peek: String,
    pub(super) in_flight: String,
    pub(super) dead_letters: String,
    pub(super) redrive: String,
    pub(super) purge: String,
    pub(super) info: String,
    pub(super) sweep: String,
    pub(super) clean: String,
    pub(super) seal: String,
    pub(super) last: String,
    pub(super) rotate_events: String,
    pub(super) rotate_claims: String,
}

impl Sql {
    pub(super) fn new(schema: &str) -> Self {
        let s = quote_ident(schema);
        let sequence = |name: &str| quote_literal(&format!("{s}.{name}"));
        let (slot, seq) = (sequence("queue_slot"), sequence("queue_seq"));
        // The two levels fix the order: the transaction's id before the number. One of them is drawn, for up to `STEP`
        // messages; in a list by itself, so that no plan draws one for each. Where something is configured that is to be
        // looked at, nothing is put in.
        let drawn = format!(
            "WITH x AS MATERIALIZED ( \
             SELECT x, nextval({seq}) AS n, coalesce(pg_sequence_last_value({slot}), 0)::int2 AS slot, \
             clock_timestamp() AS at FROM ( \
             SELECT pg_current_xact_id() AS x WHERE NOT EXISTS (SELECT FROM {s}.stream_configurations k \
             WHERE k.kind = 'queue' AND k.name = $3 AND (k.closed OR k.max_length > 0)) OFFSET 0) AS a OFFSET 0)"
        );
        Self {
            open: format!("SELECT queue_id, lanes, key_lanes, priorities FROM {s}.queue_open($1, $2, $3, $4)"),
            put: format!("SELECT {s}.queue_put($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"),
            // The data comes as text, which costs less than an array of jsonb.
            put_plain: format!(
                "{drawn} INSERT INTO {s}.queue_events (queue_id, slot, attempt, lane, xid, seq, enqueued_at, id, type, data, run) \
                 SELECT $1, x.slot, 1::int2, $2, x.x, x.n + o - 1, x.at, id, type, data::jsonb, \
                 CASE o WHEN 1 THEN cardinality($4::uuid[]) END \
                 FROM x, unnest($4::uuid[], $5::text[], $6::text[]) WITH ORDINALITY AS u (id, type, data, o)"
            ),
            // What is given is in a list by itself: a plan made for these values would cost more than it gains.
            put_packed: format!(
                "{drawn}, a AS MATERIALIZED (SELECT $4::uuid[] AS ids, $5::text[] AS types, $6::text[] AS datas) \
                 INSERT INTO {s}.queue_events (queue_id, slot, attempt, lane, xid, seq, enqueued_at, messages, \
                 ids, types, datas, run) \
                 SELECT $1, x.slot, 1::int2, $2, x.x, x.n + p, x.at, least({PACK}, cardinality(a.ids) - p), \
                 a.ids[p + 1 : p + {PACK}], a.types[p + 1 : p + {PACK}], a.datas[p + 1 : p + {PACK}]::jsonb[], \
                 CASE p WHEN 0 THEN (cardinality(a.ids) + {PACK} - 1) / {PACK} END \
                 FROM x, a, generate_series(0, cardinality(a.ids) - 1, {PACK}) AS p"
            ),
            take: format!(
                "SELECT claims, tokens, messages, deadline, seqs, attempts, enqueued_at, ids, priorities, types, data, keys, \
                 correlation_ids, causation_ids, traceparents, tracestates, tenants, headers \
                 FROM {s}.queue_take($1, $2, $3, $4, $5, $6)"
            ),
            done: format!("SELECT claim_id, seq FROM {s}.queue_done($1, $2, $3, $4, $5)"),
            failed: format!("SELECT {s}.queue_failed($1, $2, $3, $4, $5, $6)"),
            extend: format!("SELECT claim_id, token FROM {s}.queue_extend($1, $2, $3, $4)"),
            peek: format!(
                "SELECT 0::bigint, 0, 1, clock_timestamp(), {MESSAGE} FROM ( \
                 SELECT {MESSAGE}, 0 AS part FROM {s}.queue_ready r WHERE r.queue_id = $1 \
                 UNION ALL SELECT {MESSAGE}, -1 FROM (SELECT e.* FROM {s}.queue_cursors c, unnest(c.passed) AS u (p), {s}.queue_events e \
                 WHERE c.queue_id = $1 AND e.queue_id = $1 AND e.lane IN (c.lane, c.lane + 64) AND e.seq = u.p) AS p) AS m \
                 ORDER BY priority DESC, part, seq LIMIT $2"
            ),
            in_flight: format!(
                "SELECT coalesce(e.id, e.ids[o.seq - e.seq + 1]), o.consumer, o.claimed_at, o.deadline, CASE WHEN o.key_hash IS NULL THEN e.attempt ELSE o.attempt END \
                 FROM {s}.queue_open_claims o JOIN {s}.queue_events e ON e.queue_id = o.queue_id \
                 AND e.lane IN (o.lane, o.lane + 64) AND e.seq IN (o.seq, o.seq - (o.seq - 1) % {PACK}) \
                 AND o.seq < e.seq + e.messages \
                 WHERE o.queue_id = $1 AND o.consumer IS NOT NULL ORDER BY o.deadline, o.claim_id, o.seq LIMIT $2"
            ),
            dead_letters: format!(
                "SELECT 0::bigint, 0, 1, dead_at, {MESSAGE}, reason FROM {s}.dead_letter_queue \
                 WHERE queue_id = $1 ORDER BY dead_at, enqueued_at, id LIMIT $2"
            ),
            redrive: format!("SELECT {s}.queue_redrive($1, $2, $3)"),
            purge: format!("SELECT {s}.queue_purge($1, $2)"),
            info: format!("SELECT name, ready, delayed, in_flight, dead, oldest, redelivered FROM {s}.queue_info($1)"),
            sweep: format!("SELECT swept, upto, due_in, is_full FROM {s}.queue_sweep($1, $2, $3)"),
            clean: format!("SELECT {s}.queue_clean()"),
            seal: format!("SELECT {s}.queue_seal()"),
            last: format!("SELECT coalesce(pg_sequence_last_value({seq}), 0)"),
            rotate_events: format!("SELECT {s}.queue_rotate_events($1)"),
            rotate_claims: format!("SELECT {s}.queue_rotate_claims($1)"),
        }
    }
}
