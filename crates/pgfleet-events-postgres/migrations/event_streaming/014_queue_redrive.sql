-- Putting dead letters back, with the keys that waited for them; removing what waits; saying how much there is.

-- Lets the messages of a lane's keys go on whose dead letters are gone, `a_seqs` first: at the front, in order.
CREATE FUNCTION :"schema".queue_unpark(a_queue int, a_lane int, a_seqs bigint[]) RETURNS void LANGUAGE plpgsql
SET search_path TO :"schema", pg_temp AS $$
DECLARE
    v_xid xid8 := pg_current_xact_id();
    v_seqs bigint[];
    v_keys bigint[];
    c in_flight_events;
BEGIN
    WITH k AS (
        DELETE FROM queue_parked_keys p WHERE p.queue_id = a_queue AND p.lane = a_lane
          AND NOT EXISTS (SELECT FROM dead_letter_queue d WHERE d.queue_id = a_queue AND d.lane = a_lane AND d.key = p.key)
        RETURNING p.key
    ), m AS (
        DELETE FROM queue_parked p USING k WHERE p.queue_id = a_queue AND p.lane = a_lane AND p.key = k.key RETURNING p.*
    ), i AS (
        INSERT INTO queue_events (queue_id, slot, attempt, lane, xid, seq, enqueued_at, id, priority, type, data, key,
            correlation_id, causation_id, traceparent, tracestate, tenant, headers)
        SELECT o.queue_id, coalesce(pg_sequence_last_value('queue_slot'), 0)::int2, 1, a_lane + 64, v_xid, nextval('queue_seq'), o.enqueued_at,
            o.id, o.priority, o.type, o.data, o.key, o.correlation_id, o.causation_id, o.traceparent, o.tracestate, o.tenant, o.headers
        FROM (SELECT * FROM m ORDER BY place OFFSET 0) AS o
        RETURNING seq
    ) SELECT coalesce(array_agg(seq ORDER BY seq), '{}') INTO v_seqs FROM i;
    v_seqs := a_seqs || v_seqs;
    IF v_seqs = '{}' THEN
        RETURN;
    END IF;
    SELECT array_agg(hashtextextended(e.key, 0) ORDER BY u.o) INTO v_keys
    FROM unnest(v_seqs) WITH ORDINALITY AS u (seq, o)
    JOIN queue_events e ON e.queue_id = a_queue AND e.lane = a_lane + 64 AND e.seq = u.seq;
    SELECT * INTO c FROM in_flight_events f WHERE f.queue_id = a_queue AND f.lane = a_lane AND f.lo IS NOT NULL
    ORDER BY f.claim_id DESC LIMIT 1;
    INSERT INTO in_flight_events (queue_id, slot, lane, claim_id, token, messages, claimed_at, deadline, seqs, more, pos, lo_seq, hi_seq,
        lo_next, hi_next, lo, hi, passed, passed_keys, open_claims)
    VALUES (a_queue, coalesce(pg_sequence_last_value('claim_slot'), 0), a_lane, nextval('claim_seq'), 0, 0, clock_timestamp(), 'infinity', '{}',
        coalesce(c.more, false), coalesce(c.pos, 0), coalesce(c.lo_seq, 0), coalesce(c.hi_seq, 0), coalesce(c.lo_next, '3'),
        coalesce(c.hi_next, '3'), coalesce(c.lo, '3:3:'), coalesce(c.hi, '3:3:'), v_seqs || coalesce(c.passed, '{}'),
        v_keys || coalesce(c.passed_keys, '{}'), coalesce(c.open_claims, '{}'));
END
$$;

-- Puts dead letters back; all where neither a key nor ids are given. Returns how many.
CREATE FUNCTION :"schema".queue_redrive(a_queue int, a_key text, a_ids uuid[]) RETURNS bigint LANGUAGE plpgsql
SET search_path TO :"schema", pg_temp AS $$
DECLARE
    v_base bigint := hashtextextended(current_schema(), a_queue);
    v_lane int;
    v_seqs bigint[];
    v_count bigint;
    v_all bigint := 0;
BEGIN
    FOR v_lane IN SELECT DISTINCT d.lane FROM dead_letter_queue d WHERE d.queue_id = a_queue ORDER BY 1 LOOP
        PERFORM pg_advisory_xact_lock(v_base + v_lane);
        WITH d AS (
            DELETE FROM dead_letter_queue d WHERE d.queue_id = a_queue AND d.lane = v_lane
              AND (a_key IS NULL OR d.key = a_key) AND (a_ids IS NULL OR d.id = ANY (a_ids))
            RETURNING *
        ), i AS (
            INSERT INTO queue_events (queue_id, slot, attempt, lane, xid, seq, enqueued_at, id, priority, type, data, key,
                correlation_id, causation_id, traceparent, tracestate, tenant, headers)
            SELECT o.queue_id, coalesce(pg_sequence_last_value('queue_slot'), 0)::int2, 1,
                CASE WHEN v_lane % 256 >= 128 THEN v_lane + 64 ELSE v_lane END, o.x, nextval('queue_seq'),
                o.enqueued_at, o.id, o.priority, o.type, o.data, o.key, o.correlation_id, o.causation_id, o.traceparent, o.tracestate,
                o.tenant, o.headers
            FROM (SELECT pg_current_xact_id() AS x, d.* FROM d ORDER BY d.enqueued_at, d.id OFFSET 0) AS o
            RETURNING seq
        ) SELECT array_agg(seq ORDER BY seq), count(*) INTO v_seqs, v_count FROM i;
        v_all := v_all + v_count;
        IF v_lane % 256 >= 128 AND v_count > 0 THEN
            PERFORM queue_unpark(a_queue, v_lane, v_seqs);
        END IF;
    END LOOP;
    RETURN v_all;
END
$$;

-- Removes what is not handed out, or only dead letters. Returns how many.
CREATE FUNCTION :"schema".queue_purge(a_queue int, a_only_dead boolean) RETURNS bigint LANGUAGE plpgsql
SET search_path TO :"schema", pg_temp AS $$
DECLARE
    v_base bigint := hashtextextended(current_schema(), a_queue);
    v_lanes int[];
    v_lane int;
    v_count bigint;
    v_all bigint := 0;
    v_hi pg_snapshot;
    v_next xid8;
    v_top bigint;
BEGIN
    IF pg_current_xact_id_if_assigned() IS NOT NULL OR current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a queue is purged in a transaction of its own, at read committed';
    END IF;
    SELECT array_agg((b.o - 1) * 256 + l ORDER BY 1) INTO v_lanes
    FROM queues q, unnest(q.priorities) WITH ORDINALITY AS b (p, o), generate_series(0, 191) AS l
    WHERE q.queue_id = a_queue AND (l < q.lanes OR l >= 128 AND l < 128 + q.key_lanes AND b.o = 1);
    FOREACH v_lane IN ARRAY v_lanes LOOP
        PERFORM pg_advisory_xact_lock(v_base + v_lane);
    END LOOP;
    IF NOT a_only_dead THEN
        v_hi := pg_current_snapshot();
        v_next := pg_current_xact_id();
        -- Of the step that was drawn last, the last.
        v_top := coalesce(pg_sequence_last_value('queue_seq') + 1023, 0);
        SELECT coalesce(sum(w.seq + w.messages - w.from_seq), 0) INTO v_all FROM queue_waiting w
        WHERE w.queue_id = a_queue AND pg_visible_in_snapshot(w.xid, v_hi);
        SELECT v_all + coalesce(sum(cardinality(c.passed)), 0) INTO v_all FROM queue_cursors c WHERE c.queue_id = a_queue;
        -- What waits to be handed out again.
        INSERT INTO queue_closures (slot, kind, claim_id, seq)
        SELECT o.slot, 'a', o.claim_id, 0 FROM queue_open_claims o WHERE o.queue_id = a_queue AND o.consumer IS NULL
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_all := v_all + v_count;
        INSERT INTO in_flight_events (queue_id, slot, lane, claim_id, token, messages, claimed_at, deadline, seqs, more, pos, lo_seq, hi_seq,
            lo_next, hi_next, lo, hi, passed, passed_keys, open_claims)
        SELECT a_queue, coalesce(pg_sequence_last_value('claim_slot'), 0)::int2, l, nextval('claim_seq'), 0, 0, clock_timestamp(), 'infinity',
            '{}', false, 0, v_top, v_top, v_next, v_next, v_hi, v_hi, '{}', '{}',
            coalesce((SELECT c.open_claims FROM queue_cursors c WHERE c.queue_id = a_queue AND c.lane = l), '{}')
        FROM unnest(v_lanes) AS l;
        DELETE FROM queue_delayed WHERE queue_id = a_queue;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_all := v_all + v_count;
        DELETE FROM queue_parked WHERE queue_id = a_queue;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_all := v_all + v_count;
    END IF;
    DELETE FROM dead_letter_queue WHERE queue_id = a_queue;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    v_all := v_all + v_count;
    FOR v_lane IN SELECT DISTINCT lane FROM queue_parked_keys WHERE queue_id = a_queue LOOP
        PERFORM queue_unpark(a_queue, v_lane, '{}');
    END LOOP;
    RETURN v_all;
END
$$;

-- Says what is known of queues; of all where none is given.
CREATE FUNCTION :"schema".queue_info(a_name text) RETURNS TABLE (name text, ready bigint, delayed bigint, in_flight bigint, dead bigint,
    oldest timestamptz, redelivered bigint) LANGUAGE plpgsql STABLE SET search_path TO :"schema", pg_temp SET jit TO off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT q.name,
        -- What waits behind a dead letter of its key is ready as far as it is concerned.
        r.n + p.n + o.due + (SELECT count(*) FROM queue_parked d WHERE d.queue_id = q.queue_id),
        (SELECT count(*) FROM queue_delayed d WHERE d.queue_id = q.queue_id) + o.later,
        o.held,
        (SELECT count(*) FROM dead_letter_queue d WHERE d.queue_id = q.queue_id),
        least(r.oldest, p.oldest),
        coalesce((SELECT sum(n.redelivered) FROM queue_counts n WHERE n.queue_id = q.queue_id), 0)::bigint
    FROM queues q,
        LATERAL (SELECT coalesce(sum(w.seq + w.messages - w.from_seq), 0)::bigint AS n, min(w.enqueued_at) AS oldest
                 FROM queue_waiting w WHERE w.queue_id = q.queue_id) AS r,
        LATERAL (SELECT count(*) AS n, min(e.enqueued_at) AS oldest FROM queue_cursors c, unnest(c.passed) AS u (seq), queue_events e
                 WHERE c.queue_id = q.queue_id AND e.queue_id = c.queue_id AND e.lane IN (c.lane, c.lane + 64) AND e.seq = u.seq) AS p,
        LATERAL (SELECT count(*) FILTER (WHERE o.consumer IS NOT NULL) AS held,
                        count(*) FILTER (WHERE o.consumer IS NULL AND o.deadline <= clock_timestamp()) AS due,
                        count(*) FILTER (WHERE o.consumer IS NULL AND o.deadline > clock_timestamp()) AS later
                 FROM queue_open_claims o WHERE o.queue_id = q.queue_id) AS o
    WHERE a_name IS NULL OR q.name = a_name ORDER BY q.name;
END
$$;
