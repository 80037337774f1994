-- Putting messages into queues.

-- Returns a queue, with what is configured for it; makes it, its priority and its lanes for keys where needed.
CREATE FUNCTION :"schema".queue_open(a_name text, a_make boolean, a_priorities int2[], a_keys boolean)
RETURNS TABLE (queue_id int, lanes int, key_lanes int, priorities int2[]) LANGUAGE plpgsql
SET search_path TO :"schema", pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF a_make THEN
        INSERT INTO queues (name) SELECT a_name WHERE NOT EXISTS (SELECT FROM queues q WHERE q.name = a_name)
        ON CONFLICT (name) DO NOTHING;
        UPDATE queues q SET
            key_lanes = CASE WHEN a_keys AND q.key_lanes = 0 THEN 8 ELSE q.key_lanes END,
            priorities = q.priorities || ARRAY(SELECT DISTINCT p FROM unnest(a_priorities) p WHERE p <> ALL (q.priorities))
        WHERE q.name = a_name AND (a_keys AND q.key_lanes = 0 OR NOT a_priorities <@ q.priorities);
    END IF;
    RETURN QUERY SELECT q.queue_id, q.lanes, q.key_lanes, q.priorities FROM queues q WHERE q.name = a_name;
END
$$;

-- Puts messages in; says of each whether it is new.
CREATE FUNCTION :"schema".queue_put(
    a_queue int, a_lanes int[], a_ids uuid[], a_priorities int2[], a_types text[], a_data jsonb[],
    a_keys text[], a_dedup text[], a_delays bigint[], a_correlations text[], a_causations text[], a_traceparents text[],
    a_tracestates text[], a_tenants text[], a_headers jsonb[]
) RETURNS boolean[] LANGUAGE plpgsql SET search_path TO :"schema", pg_temp AS $$
DECLARE
    -- First of all: of the whole transaction, also within a savepoint.
    v_xid xid8 := pg_current_xact_id();
    v_new boolean[] := array_fill(true, ARRAY[cardinality(a_ids)]);
    v_dues timestamptz[] := array_fill(NULL::timestamptz, ARRAY[cardinality(a_ids)]);
    v_given text[];
    v_slot int2 := pg_sequence_last_value('queue_slot');
    v_now timestamptz := clock_timestamp();
    v_window interval := '24 hours';
    v_most bigint := 0;
    v_closed boolean := false;
    v_run int;
BEGIN
    SELECT k.dedup_window, k.max_length, k.closed INTO v_window, v_most, v_closed
    FROM queues q JOIN stream_configurations k ON k.kind = 'queue' AND k.name = q.name WHERE q.queue_id = a_queue;
    IF v_closed THEN
        RETURN NULL;
    END IF;
    IF v_most > 0 AND cardinality(a_ids) + (
        SELECT count(*) FROM (
            (SELECT FROM queue_waiting w, generate_series(w.from_seq, w.seq + w.messages - 1) WHERE w.queue_id = a_queue LIMIT v_most)
            UNION ALL (SELECT FROM queue_delayed d WHERE d.queue_id = a_queue LIMIT v_most)
            UNION ALL SELECT FROM queue_cursors c, unnest(c.passed) WHERE c.queue_id = a_queue
        ) AS w) > v_most
    THEN
        RETURN '{}';
    END IF;
    IF array_remove(a_dedup, NULL) <> '{}' THEN
        -- In one order everywhere, so that nobody waits in a circle. Whoever puts in the same id at the same time waits.
        WITH g AS (
            INSERT INTO queue_dedup AS d (queue_id, at, dedup_id)
            SELECT a_queue, v_now, u.d FROM (SELECT DISTINCT x FROM unnest(a_dedup) x WHERE x IS NOT NULL ORDER BY x) AS u (d)
            ON CONFLICT (queue_id, dedup_id) DO UPDATE SET at = excluded.at WHERE d.at <= excluded.at - coalesce(v_window, interval '24 hours')
            RETURNING dedup_id
        ) SELECT coalesce(array_agg(dedup_id), '{}') INTO v_given FROM g;
        SELECT array_agg(x.d IS NULL OR x.d = ANY (v_given) AND x.k = 1 ORDER BY x.o) INTO v_new
        FROM (SELECT u.d, u.o, row_number() OVER (PARTITION BY u.d ORDER BY u.o) AS k
              FROM unnest(a_dedup) WITH ORDINALITY AS u (d, o)) AS x;
    END IF;
    IF EXISTS (SELECT FROM unnest(a_delays) AS d WHERE d > 0)
        OR array_remove(a_keys, NULL) <> '{}' AND EXISTS (SELECT FROM queue_delayed d WHERE d.queue_id = a_queue AND d.key = ANY (a_keys))
    THEN
        -- What comes behind a delayed message of its key waits as long as that one does.
        SELECT array_agg(CASE WHEN x.k IS NULL THEN x.due ELSE greatest(x.before, (
                SELECT max(d.due) FROM queue_delayed d WHERE d.queue_id = a_queue AND d.key = x.k)) END ORDER BY x.o) INTO v_dues
        FROM (SELECT u.k, u.o, u.due, max(u.due) OVER (PARTITION BY u.k ORDER BY u.o) AS before
              FROM (SELECT v.k, v.o, CASE WHEN v.d > 0 THEN v_now + v.d * interval '1 microsecond' END AS due
                    FROM unnest(a_keys, a_delays) WITH ORDINALITY AS v (k, d, o)) AS u) AS x;
    END IF;
    IF a_lanes[1] = ALL (a_lanes) AND true = ALL (v_new) AND array_remove(v_dues, NULL) = '{}' THEN
        v_run := cardinality(a_lanes);
    END IF;
    INSERT INTO queue_events (queue_id, slot, attempt, lane, xid, seq, enqueued_at, id, priority, type, data, key,
        correlation_id, causation_id, traceparent, tracestate, tenant, headers, run)
    SELECT a_queue, coalesce(v_slot, 0), 1, u.lane, v_xid, nextval('queue_seq'), v_now, u.id, u.priority, u.type, u.data, u.key,
        u.correlation, u.causation, u.traceparent, u.tracestate, u.tenant, u.headers,
        CASE WHEN v_run IS NULL THEN 1 WHEN u.o = 1 THEN v_run END
    FROM unnest(a_lanes, a_ids, a_priorities, a_types, a_data, a_keys, v_dues, v_new, a_correlations, a_causations,
        a_traceparents, a_tracestates, a_tenants, a_headers) WITH ORDINALITY
        AS u (lane, id, priority, type, data, key, due, new, correlation, causation, traceparent, tracestate, tenant, headers, o)
    WHERE u.new AND u.due IS NULL;
    IF array_remove(v_dues, NULL) <> '{}' THEN
        INSERT INTO queue_delayed (queue_id, attempt, lane, due, seq, enqueued_at, id, priority, type, data, key,
            correlation_id, causation_id, traceparent, tracestate, tenant, headers)
        SELECT a_queue, 1, u.lane, u.due, nextval('queue_seq'), v_now, u.id, u.priority,
            u.type, u.data, u.key, u.correlation, u.causation, u.traceparent, u.tracestate, u.tenant, u.headers
        FROM unnest(a_lanes, a_ids, a_priorities, a_types, a_data, a_keys, v_dues, v_new, a_correlations, a_causations,
            a_traceparents, a_tracestates, a_tenants, a_headers)
            AS u (lane, id, priority, type, data, key, due, new, correlation, causation, traceparent, tracestate, tenant,
                headers)
        WHERE u.new AND u.due IS NOT NULL;
    END IF;
    RETURN v_new;
END
$$;
