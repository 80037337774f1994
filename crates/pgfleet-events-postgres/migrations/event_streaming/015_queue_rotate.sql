-- Tables of queues that are emptied in turn, and what has to be done before rows go.

-- Takes a table for this transaction alone, for which nobody waits longer than 50 ms; says whether that could be had.
CREATE FUNCTION :"schema".queue_lock_alone(a_tables text) RETURNS boolean LANGUAGE plpgsql
SET search_path TO :"schema", pg_temp AS $$
BEGIN
    PERFORM set_config('lock_timeout', '40ms', true);
    FOR i IN 1 .. 20 LOOP
        BEGIN
            EXECUTE 'LOCK TABLE ' || a_tables || ' IN ACCESS EXCLUSIVE MODE';
            RETURN true;
        EXCEPTION WHEN lock_not_available THEN
            PERFORM pg_sleep(0.01 * i);
        END;
    END LOOP;
    RETURN false;
END
$$;

-- Empties the table of messages, or that of claims, that is not written to, and goes over to it when the other one has
-- grown beyond so many bytes. What is needed still is carried over as it is. Says what was done: empty, switch, or none.
CREATE FUNCTION :"schema".queue_rotate_events(a_bytes bigint) RETURNS text LANGUAGE plpgsql
SET search_path TO :"schema", pg_temp SET jit TO off AS $$
DECLARE
    v_now int2 := coalesce(pg_sequence_last_value('queue_slot'), 0);
    v_old int2 := 1 - v_now;
    v_old_bytes bigint := pg_table_size('queue_events_' || v_old);
    v_bytes bigint := pg_table_size('queue_events_' || v_now);
    v_columns text := 'attempt, lane, xid, seq, enqueued_at, id, priority, type, data, key, correlation_id, causation_id, traceparent, '
        || 'tracestate, tenant, headers, messages, ids, types, datas';
    v_snapshot pg_snapshot;
    v_all bigint;
    v_needed bigint;
    v_wanted text;
BEGIN
    IF pg_relation_size('queue_events_' || v_old) = 0 THEN
        IF v_bytes < a_bytes THEN
            RETURN 'none';
        END IF;
        PERFORM setval('queue_slot', v_old);
        RETURN 'switch';
    END IF;
    IF NOT pg_try_advisory_xact_lock(hashtextextended(current_schema(), -2)) THEN
        RETURN 'none';
    END IF;
    v_snapshot := pg_current_snapshot();
    v_wanted := format('FROM queue_events_%s e
        LEFT JOIN (SELECT queue_id, lane, lo, hi, more, pos FROM queue_cursors OFFSET 0) AS c ON c.queue_id = e.queue_id AND c.lane = e.lane
        WHERE pg_visible_in_snapshot(e.xid, $1)
        AND ((e.queue_id, e.seq) IN (SELECT h.queue_id, u.seq FROM queue_held h, LATERAL (VALUES (h.seq), (h.seq - (h.seq - 1) %% 128)) AS u (seq))
             OR e.lane %% 256 < 192 AND (c.lo IS NULL OR NOT pg_visible_in_snapshot(e.xid, c.lo)
                AND (NOT pg_visible_in_snapshot(e.xid, c.hi) OR c.more AND e.seq + e.messages > c.pos + 1)))', v_old);
    EXECUTE 'SELECT coalesce(sum(e.messages), 0) ' || v_wanted INTO v_needed USING v_snapshot;
    IF v_needed > 0 THEN
        EXECUTE format('SELECT sum(messages) FROM queue_events_%s', v_old) INTO v_all;
        -- Copying is worth it when as much was written since; so a backlog that stands costs a share of what passes.
        IF v_needed > 5000 AND v_needed * (v_old_bytes / greatest(v_all, 1)) > v_bytes / 2 THEN
            RETURN 'none';
        END IF;
        EXECUTE format('INSERT INTO queue_events (queue_id, slot, %s) SELECT e.queue_id, %s, %s ', v_columns, v_now, 'e.' || replace(v_columns, ', ', ', e.')) || v_wanted
        USING v_snapshot;
    END IF;
    IF NOT queue_lock_alone(format('queue_events_%s', v_old)) THEN
        RAISE EXCEPTION 'the table is in use' USING ERRCODE = 'lock_not_available';
    END IF;
    -- What was put in since by those who had not heard of the other table.
    EXECUTE format('INSERT INTO queue_events (queue_id, slot, %s) SELECT queue_id, %s, %s FROM queue_events_%s
        WHERE NOT pg_visible_in_snapshot(xid, $1)', v_columns, v_now, v_columns, v_old) USING v_snapshot;
    EXECUTE format('TRUNCATE queue_events_%s', v_old);
    RETURN 'empty';
END
$$;

CREATE FUNCTION :"schema".queue_rotate_claims(a_bytes bigint) RETURNS text LANGUAGE plpgsql
SET search_path TO :"schema", pg_temp SET jit TO off AS $$
DECLARE
    v_now int2 := coalesce(pg_sequence_last_value('claim_slot'), 0);
    v_old int2 := 1 - v_now;
    v_columns text := 'attempt, lane, claim_id, token, messages, claimed_at, deadline, consumer, key_hash, seqs, more, pos, lo_seq, hi_seq, '
        || 'lo_next, hi_next, lo, hi, passed, passed_keys, open_claims';
    v_ids bigint[];
    v_count bigint;
    v_again bigint;
BEGIN
    IF pg_relation_size('in_flight_events_' || v_old) = 0 AND pg_relation_size('queue_closures_' || v_old) = 0 THEN
        IF pg_relation_size('in_flight_events_' || v_now) + pg_relation_size('queue_closures_' || v_now) < a_bytes THEN
            RETURN 'none';
        END IF;
        PERFORM setval('claim_slot', v_old);
        RETURN 'switch';
    END IF;
    IF NOT pg_try_advisory_xact_lock(hashtextextended(current_schema(), -3)) THEN
        RETURN 'none';
    END IF;
    -- In one statement: the count belongs to what was looked through.
    EXECUTE format('SELECT (SELECT count(*) FROM in_flight_events_%s), array(
        SELECT claim_id FROM queue_open_claims WHERE slot = %s UNION SELECT claim_id FROM queue_cursors WHERE slot = %s)', v_old, v_old, v_old)
    INTO v_count, v_ids;
    IF cardinality(v_ids) > 50000 THEN
        RETURN 'none';
    END IF;
    IF NOT queue_lock_alone(format('in_flight_events_%s, queue_closures_%s', v_old, v_old)) THEN
        RAISE EXCEPTION 'the table is in use' USING ERRCODE = 'lock_not_available';
    END IF;
    EXECUTE format('SELECT count(*) FROM in_flight_events_%s', v_old) INTO v_again;
    IF v_again <> v_count THEN
        -- Somebody has claimed who had not heard of the other table; the next time it is looked through anew.
        RETURN 'none';
    END IF;
    EXECUTE format('INSERT INTO in_flight_events (queue_id, slot, %s) SELECT queue_id, %s, %s FROM in_flight_events_%s
        WHERE claim_id = ANY ($1)', v_columns, v_now, v_columns, v_old) USING v_ids;
    -- With how parts of them ended, and what they follow.
    EXECUTE format('INSERT INTO queue_closures (slot, kind, claim_id, seq, next_claim)
        WITH RECURSIVE b AS (
            SELECT kind, claim_id, seq, next_claim FROM queue_closures_%1$s WHERE claim_id = ANY ($1) OR next_claim = ANY ($1)
            UNION SELECT k.kind, k.claim_id, k.seq, k.next_claim FROM b JOIN queue_closures_%1$s k ON k.next_claim = b.claim_id)
        SELECT %2$s, kind, claim_id, seq, next_claim FROM b', v_old, v_now) USING v_ids;
    EXECUTE format('TRUNCATE in_flight_events_%s, queue_closures_%s', v_old, v_old);
    RETURN 'empty';
END
$$;

-- Makes ready that some messages go and others of the same statement stay: each of its rows is found by itself from then on, not
-- from the first of them, and packs that hold some of them and others beside are rows. Meanwhile nobody may take from the
-- lanes, nor carry rows over into the other table.
CREATE FUNCTION :"schema".queue_unpack(a_queue int, a_lanes int[], a_seqs bigint[]) RETURNS void LANGUAGE sql
SET search_path TO :"schema", pg_temp AS $$
    UPDATE queue_events e SET run = 1 WHERE e.queue_id = a_queue AND e.lane = ANY (a_lanes) AND e.run IS DISTINCT FROM 1
      AND e.xid IN (SELECT f.xid FROM queue_events f WHERE f.queue_id = a_queue AND f.lane = ANY (a_lanes)
        AND f.seq IN (SELECT u.f FROM unnest(a_seqs) AS s, LATERAL (VALUES (s), (s - (s - 1) % 128)) AS u (f)));
    WITH f AS MATERIALIZED (
        SELECT s - (s - 1) % 128 AS seq, count(*) AS messages FROM unnest(a_seqs) AS s GROUP BY 1
    ), d AS (
        DELETE FROM queue_events e USING f WHERE e.queue_id = a_queue AND e.lane = ANY (a_lanes) AND e.seq = f.seq
          AND e.ids IS NOT NULL AND e.messages > f.messages
        RETURNING e.*
    )
    INSERT INTO queue_events (queue_id, slot, attempt, lane, xid, seq, enqueued_at, id, priority, type, data, key,
        correlation_id, causation_id, traceparent, tracestate, tenant, headers)
    SELECT d.queue_id, d.slot, d.attempt, d.lane, d.xid, d.seq + u.o - 1, d.enqueued_at, u.id, d.priority, u.type, u.data, d.key,
        d.correlation_id, d.causation_id, d.traceparent, d.tracestate, d.tenant, d.headers
    FROM d, unnest(d.ids, d.types, d.datas) WITH ORDINALITY AS u (id, type, data, o)
$$;

-- Emptying a table whole and moving a sequence on are the owner's rights. Whoever may use the schema may have these done:
-- what they do is decided by the clock and by what is in the tables, not by who calls.
ALTER FUNCTION :"schema".queue_rotate_events(bigint) SECURITY DEFINER;
ALTER FUNCTION :"schema".queue_rotate_claims(bigint) SECURITY DEFINER;
