-- Makes the tables fit a cluster in which the numbers of transactions have begun anew, as after a dump and a restore: what
-- is not done is put in again, in its order. Says whether that was needed.
CREATE FUNCTION :"schema".queue_seal() RETURNS boolean LANGUAGE plpgsql SET search_path TO :"schema", pg_temp SET jit TO off AS $$
DECLARE
    v_system bigint := (SELECT system_identifier FROM pg_control_system());
    v_xid xid8;
BEGIN
    IF pg_is_in_recovery() OR EXISTS (SELECT FROM queue_cluster WHERE system_identifier = v_system) THEN
        RETURN false;
    END IF;
    PERFORM set_config('lock_timeout', '10s', true);
    LOCK TABLE queue_events, in_flight_events, queue_closures IN ACCESS EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM queue_cluster WHERE system_identifier = v_system) THEN
        RETURN false;
    END IF;
    v_xid := pg_current_xact_id();
    CREATE TEMPORARY TABLE queue_rest ON COMMIT DROP AS
    WITH held AS (
        -- First what had been handed out or passed by, then what came behind it.
        SELECT o.queue_id, o.seq, greatest(o.attempt, 0) AS tries, 0 AS part, o.seq AS place, o.key_hash IS NOT NULL AS keyed,
            o.consumer IS NOT NULL AS claimed FROM queue_open_claims o
        UNION ALL
        SELECT c.queue_id, p.seq, 0, 1, p.o, true, false FROM queue_cursors c, unnest(c.passed) WITH ORDINALITY AS p (seq, o)
    )
    SELECT e.queue_id, e.lane, e.enqueued_at, coalesce(e.id, e.ids[h.seq - e.seq + 1]) AS id, e.priority,
        coalesce(e.type, e.types[h.seq - e.seq + 1]) AS type, coalesce(e.data, e.datas[h.seq - e.seq + 1]) AS data, e.key, e.correlation_id,
        e.causation_id, e.traceparent, e.tracestate, e.tenant, e.headers, h.part, h.place,
        CASE WHEN h.claimed AND NOT h.keyed THEN e.attempt + 1 ELSE e.attempt END AS tries
    FROM held h JOIN queue_events e ON e.queue_id = h.queue_id AND e.seq IN (h.seq, h.seq - (h.seq - 1) % 128)
        AND h.seq < e.seq + e.messages
    UNION ALL
    SELECT e.queue_id, e.lane, e.enqueued_at, e.id, e.priority, e.type, e.data, e.key, e.correlation_id, e.causation_id,
        e.traceparent, e.tracestate, e.tenant, e.headers, CASE WHEN pg_visible_in_snapshot(e.xid, coalesce(c.hi, '3:3:')) THEN 2 ELSE 3 END, e.seq, e.attempt
    FROM queue_ready e LEFT JOIN queue_cursors c ON c.queue_id = e.queue_id AND c.lane = e.lane;
    TRUNCATE queue_events, in_flight_events, queue_closures;
    INSERT INTO queue_events (queue_id, slot, attempt, lane, xid, seq, enqueued_at, id, priority, type, data, key,
        correlation_id, causation_id, traceparent, tracestate, tenant, headers)
    SELECT o.queue_id, 0, o.tries, CASE WHEN o.lane % 256 >= 192 THEN o.lane - 64 ELSE o.lane END, v_xid, nextval('queue_seq'), o.enqueued_at,
        o.id, o.priority, o.type, o.data, o.key, o.correlation_id, o.causation_id, o.traceparent, o.tracestate, o.tenant, o.headers
    FROM (SELECT * FROM queue_rest ORDER BY part, place OFFSET 0) AS o;
    PERFORM setval('queue_slot', 0), setval('claim_slot', 0);
    UPDATE queue_cluster SET system_identifier = v_system;
    RETURN true;
END
$$;

-- As for those that rotate.
ALTER FUNCTION :"schema".queue_seal() SECURITY DEFINER;
