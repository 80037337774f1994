-- What time demands of queues.

-- Does what time demands; for claims whose deadlines are later than `a_since`. Returns how much was done.
CREATE FUNCTION :"schema".queue_sweep(a_since timestamptz, a_event_bytes bigint, a_claim_bytes bigint,
    OUT swept bigint, OUT upto timestamptz, OUT due_in double precision, OUT is_full boolean) LANGUAGE plpgsql
SET search_path TO :"schema", pg_temp SET enable_seqscan TO off SET jit TO off AS $$
DECLARE
    v_claims bigint[];
    v_seqs bigint[];
    v_next bigint[];
    v_moved bigint;
    v_xid xid8;
BEGIN
    swept := 0;
    upto := clock_timestamp();
    due_in := extract(epoch FROM (SELECT due FROM queue_delayed ORDER BY due LIMIT 1) - upto);
    is_full := greatest(pg_table_size('queue_events_0'), pg_table_size('queue_events_1')) >= a_event_bytes
        OR greatest(pg_relation_size('in_flight_events_0') + pg_relation_size('queue_closures_0'),
                    pg_relation_size('in_flight_events_1') + pg_relation_size('queue_closures_1')) >= a_claim_bytes
        OR CASE pg_sequence_last_value('queue_slot') WHEN 1 THEN pg_relation_size('queue_events_0') ELSE pg_relation_size('queue_events_1') END > 0
        OR CASE pg_sequence_last_value('claim_slot') WHEN 1 THEN pg_relation_size('in_flight_events_0')
           ELSE pg_relation_size('in_flight_events_1') END > 0;
    -- One at a time. Whoever finds another one at it leaves it to him.
    IF NOT pg_try_advisory_xact_lock(hashtextextended(current_schema(), -1)) THEN
        upto := a_since;
        RETURN;
    END IF;
    PERFORM set_config('synchronous_commit', 'off', true);
    IF EXISTS (SELECT FROM queue_delayed WHERE due <= upto) THEN
        v_xid := pg_current_xact_id();
        WITH d AS (
            DELETE FROM queue_delayed WHERE ctid = ANY (ARRAY(SELECT ctid FROM queue_delayed WHERE due <= upto ORDER BY due, seq LIMIT 10000))
            RETURNING *
        )
        INSERT INTO queue_events (queue_id, slot, attempt, lane, xid, seq, enqueued_at, id, priority, type, data, key,
            correlation_id, causation_id, traceparent, tracestate, tenant, headers)
        SELECT o.queue_id, coalesce(pg_sequence_last_value('queue_slot'), 0)::int2, o.attempt, o.lane, v_xid, nextval('queue_seq'), o.enqueued_at,
            o.id, o.priority, o.type, o.data, o.key, o.correlation_id, o.causation_id, o.traceparent, o.tracestate, o.tenant, o.headers
        FROM (SELECT * FROM d ORDER BY due, seq OFFSET 0) AS o;
        GET DIAGNOSTICS v_moved = ROW_COUNT;
        swept := swept + v_moved;
    END IF;
    IF EXISTS (SELECT FROM in_flight_events f WHERE f.deadline > a_since AND f.deadline <= upto AND f.consumer IS NOT NULL
        AND NOT EXISTS (SELECT FROM queue_closures k WHERE k.claim_id = f.claim_id AND k.seq = 0)) THEN
        WITH due AS MATERIALIZED (
            SELECT f.slot, f.claim_id, f.messages, f.seqs, f.key_hash FROM in_flight_events f
            WHERE f.deadline > a_since AND f.deadline <= upto AND f.consumer IS NOT NULL
              AND NOT EXISTS (SELECT FROM queue_closures k WHERE k.claim_id = f.claim_id AND k.seq = 0)
            ORDER BY f.deadline LIMIT 10000
        ), x AS (
            INSERT INTO queue_closures (slot, kind, claim_id, seq, next_claim)
            SELECT slot, 'x', claim_id, 0, CASE WHEN key_hash IS NOT NULL THEN nextval('claim_seq') END FROM due ORDER BY claim_id
            ON CONFLICT DO NOTHING RETURNING claim_id, next_claim
        ), y AS (
            -- Single messages of it may be done, or be done just now: of each, the first counts.
            INSERT INTO queue_closures (slot, kind, claim_id, seq)
            SELECT d.slot, 'x', d.claim_id, u.seq FROM x JOIN due d ON d.claim_id = x.claim_id, unnest(d.seqs) AS u (seq)
            WHERE d.messages > 1 ORDER BY 3, 4 ON CONFLICT DO NOTHING RETURNING claim_id, seq
        ), w AS (
            SELECT claim_id, seq, NULL::bigint AS next FROM y
            UNION ALL SELECT d.claim_id, d.seqs[1], x.next_claim FROM x JOIN due d ON d.claim_id = x.claim_id WHERE d.messages = 1
        ) SELECT array_agg(claim_id), array_agg(seq), array_agg(next) INTO v_claims, v_seqs, v_next FROM w;
        IF v_claims IS NOT NULL THEN
            PERFORM queue_give_back(v_claims, v_seqs, v_next, true, 0, 'not done within its time');
            swept := swept + cardinality(v_claims);
        END IF;
    END IF;
END
$$;

-- Removes what is kept for a time only: ids that must not come twice, dead letters; and adds up counts. A part at a time.
CREATE FUNCTION :"schema".queue_clean() RETURNS bigint LANGUAGE plpgsql SET search_path TO :"schema", pg_temp SET jit TO off AS $$
DECLARE
    v_count bigint;
    v_all bigint;
    r record;
BEGIN
    DELETE FROM queue_dedup d WHERE d.ctid = ANY (ARRAY(
        SELECT d.ctid FROM queues q LEFT JOIN stream_configurations k ON k.kind = 'queue' AND k.name = q.name,
            LATERAL (SELECT d.ctid FROM queue_dedup d WHERE d.queue_id = q.queue_id
                     AND d.at < clock_timestamp() - coalesce(k.dedup_window, interval '24 hours') ORDER BY d.at LIMIT 10000) AS d
        LIMIT 10000));
    GET DIAGNOSTICS v_all = ROW_COUNT;
    FOR r IN
        SELECT q.queue_id, coalesce(k.keep_dead, interval '30 days') AS keep
        FROM queues q LEFT JOIN stream_configurations k ON k.kind = 'queue' AND k.name = q.name
        WHERE coalesce(k.keep_dead, interval '30 days') > interval '0'
    LOOP
        DELETE FROM dead_letter_queue d WHERE d.queue_id = r.queue_id AND d.dead_at < clock_timestamp() - r.keep;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_all := v_all + v_count;
        IF v_count > 0 THEN
            PERFORM pg_advisory_xact_lock(hashtextextended(current_schema(), r.queue_id) + p.lane), queue_unpark(r.queue_id, p.lane, '{}')
            FROM (SELECT DISTINCT lane FROM queue_parked_keys WHERE queue_id = r.queue_id ORDER BY 1) AS p;
        END IF;
    END LOOP;
    IF (SELECT count(*) FROM (SELECT FROM queue_counts LIMIT 1000) AS c) >= 1000 THEN
        WITH d AS (DELETE FROM queue_counts RETURNING *)
        INSERT INTO queue_counts SELECT queue_id, sum(redelivered) FROM d GROUP BY 1;
    END IF;
    RETURN v_all;
END
$$;
