-- Messages by their numbers: which came late, and what they say.

-- What was put into a lane by transactions that had an id when `lo` was taken and were not done, and is visible in `hi`.
-- In plpgsql, so that the tables are locked before the snapshot is taken: a TRUNCATE between the two would hide messages. What is no
-- transaction's number is hidden from the planner: without statistics it takes the index by lane, and reads all of the lane.
CREATE FUNCTION :"schema".queue_late(a_queue int, a_lane int, a_lo pg_snapshot, a_hi pg_snapshot, a_lo_next xid8, a_pos bigint,
    a_lo_seq bigint, a_most int) RETURNS bigint[] LANGUAGE plpgsql
SET search_path TO :"schema", pg_temp SET enable_seqscan TO off SET enable_bitmapscan TO off SET jit TO off AS $$
BEGIN
    RETURN (SELECT coalesce(array_agg(w.seq ORDER BY w.seq), '{}') FROM (
        SELECT m.seq FROM (
            SELECT e.seq, e.xid, e.run FROM queue_events e
            WHERE e.run IS NOT NULL AND e.xid = ANY (ARRAY(SELECT pg_snapshot_xip(a_lo))) AND e.queue_id + 0 = a_queue AND e.lane + 0 = a_lane
              AND e.seq + 0 <= a_lo_seq AND pg_visible_in_snapshot(e.xid, a_hi) AND NOT pg_visible_in_snapshot(e.xid, a_lo)
            UNION ALL
            SELECT e.seq, e.xid, e.run FROM queue_events e
            WHERE e.run IS NOT NULL AND e.xid >= pg_snapshot_xmax(a_lo) AND e.xid < a_lo_next AND e.queue_id + 0 = a_queue AND e.lane + 0 = a_lane
              AND e.seq + 0 <= a_lo_seq AND pg_visible_in_snapshot(e.xid, a_hi) AND NOT pg_visible_in_snapshot(e.xid, a_lo)
        ) AS f, LATERAL (
            SELECT e.seq, e.messages FROM queue_events e
            WHERE e.queue_id = a_queue AND e.lane = a_lane AND e.seq >= f.seq AND e.xid = f.xid ORDER BY e.seq LIMIT f.run
        ) AS e, generate_series(e.seq, e.seq + e.messages - 1) AS m (seq)
        WHERE m.seq > a_pos AND m.seq <= a_lo_seq ORDER BY m.seq LIMIT a_most
    ) AS w);
END
$$;

-- Messages of a lane, in the order that is given: an array for each column, none where it is empty. So a batch is one row, which
-- costs the server and whoever reads it a third of what a row for each message does.
CREATE FUNCTION :"schema".queue_messages(a_queue int, a_lane int, a_seqs bigint[])
RETURNS TABLE (attempts int2[], enqueued_at timestamptz[], ids uuid[], priorities int2[], types text[], data jsonb[], keys text[],
    correlation_ids text[], causation_ids text[], traceparents text[], tracestates text[], tenants text[], headers jsonb[])
LANGUAGE plpgsql STABLE SET search_path TO :"schema", pg_temp SET enable_seqscan TO off SET enable_hashjoin TO off
SET enable_mergejoin TO off SET jit TO off SET plan_cache_mode TO force_generic_plan AS $$
BEGIN
    -- In plpgsql, which keeps the plan.
    RETURN QUERY
    SELECT array_agg(w.attempt), array_agg(w.enqueued_at), array_agg(w.id), array_agg(w.priority), array_agg(w.type),
        array_agg(w.data), CASE WHEN count(w.key) > 0 THEN array_agg(w.key) END,
        CASE WHEN count(w.correlation_id) > 0 THEN array_agg(w.correlation_id) END,
        CASE WHEN count(w.causation_id) > 0 THEN array_agg(w.causation_id) END,
        CASE WHEN count(w.traceparent) > 0 THEN array_agg(w.traceparent) END,
        CASE WHEN count(w.tracestate) > 0 THEN array_agg(w.tracestate) END,
        CASE WHEN count(w.tenant) > 0 THEN array_agg(w.tenant) END,
        CASE WHEN count(w.headers) > 0 THEN array_agg(w.headers) END
    FROM (
        -- Each by itself, as above.
        SELECT e.* FROM unnest(a_seqs) WITH ORDINALITY AS u (seq, o), LATERAL (
            (SELECT m.* FROM queue_events m WHERE m.queue_id = a_queue AND m.lane = a_lane AND m.seq = u.seq LIMIT 1)
            UNION ALL
            (SELECT m.* FROM queue_events m WHERE m.queue_id = a_queue AND m.lane = a_lane + 64 AND m.seq = u.seq LIMIT 1)
            LIMIT 1
        ) AS e ORDER BY u.o
    ) AS w;
END
$$;

-- Messages of a lane without keys, in order, in a row each.
CREATE FUNCTION :"schema".queue_pick(a_queue int, a_lane int, a_seqs bigint[])
RETURNS TABLE (seq bigint, attempt int2, enqueued_at timestamptz, id uuid, priority int2, type text, data jsonb, correlation_id text,
    causation_id text, traceparent text, tracestate text, tenant text, headers jsonb)
LANGUAGE plpgsql STABLE SET search_path TO :"schema", pg_temp SET enable_seqscan TO off SET enable_hashjoin TO off
SET enable_mergejoin TO off SET jit TO off SET plan_cache_mode TO force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT m.seq, e.attempt, e.enqueued_at, m.id, e.priority, m.type, m.data, e.correlation_id, e.causation_id, e.traceparent,
        e.tracestate, e.tenant, e.headers
    FROM (SELECT DISTINCT f.seq FROM unnest(a_seqs) AS u (seq), LATERAL (VALUES (u.seq), (u.seq - (u.seq - 1) % 128)) AS f (seq)) AS f,
    LATERAL (
        SELECT e.* FROM queue_events e WHERE e.queue_id = a_queue AND e.lane = a_lane AND e.seq = f.seq OFFSET 0
    ) AS e, LATERAL (
        SELECT e.seq, e.id, e.type, e.data WHERE e.ids IS NULL
        UNION ALL SELECT e.seq + u.o - 1, u.id, u.type, u.data
        FROM unnest(e.ids, e.types, e.datas) WITH ORDINALITY AS u (id, type, data, o)
    ) AS m WHERE m.seq = ANY (a_seqs) ORDER BY m.seq;
END
$$;
