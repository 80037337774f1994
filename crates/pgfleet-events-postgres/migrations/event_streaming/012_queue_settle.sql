-- How deliveries end.

-- Ends claims as done: whole ones, and single messages of others. Returns those that were ended; of whole ones with 0.
CREATE FUNCTION :"schema".queue_done(a_claims bigint[], a_tokens int[], a_part_claims bigint[], a_part_tokens int[], a_part_seqs bigint[])
RETURNS TABLE (claim_id bigint, seq bigint) LANGUAGE plpgsql
SET search_path TO :"schema", pg_temp SET enable_seqscan TO off SET enable_hashjoin TO off SET enable_mergejoin TO off SET jit TO off
SET plan_cache_mode TO force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    IF a_claims <> '{}' THEN
        RETURN QUERY
        INSERT INTO queue_closures AS k (slot, kind, claim_id, seq)
        SELECT f.slot, 'a', f.claim_id, 0 FROM unnest(a_claims, a_tokens) AS u (claim, token)
        JOIN in_flight_events f ON f.claim_id = u.claim AND f.token = u.token
        WHERE f.consumer IS NOT NULL AND f.deadline > clock_timestamp()
          AND NOT EXISTS (SELECT FROM queue_closures k WHERE k.claim_id = u.claim)
        ON CONFLICT DO NOTHING RETURNING k.claim_id, k.seq;
    END IF;
    IF a_part_claims <> '{}' THEN
        RETURN QUERY
        INSERT INTO queue_closures AS k (slot, kind, claim_id, seq)
        SELECT f.slot, 'a', f.claim_id, u.seq FROM unnest(a_part_claims, a_part_tokens, a_part_seqs) AS u (claim, token, seq)
        JOIN in_flight_events f ON f.claim_id = u.claim AND f.token = u.token AND u.seq = ANY (f.seqs)
        WHERE f.messages > 1 AND f.deadline > clock_timestamp()
          AND NOT EXISTS (SELECT FROM queue_closures k WHERE k.claim_id = u.claim AND k.seq = 0)
        ORDER BY 3, 4 ON CONFLICT DO NOTHING RETURNING k.claim_id, k.seq;
    END IF;
END
$$;

-- Gives back messages whose claims were ended in this transaction: to the queue, or as dead letters.
CREATE FUNCTION :"schema".queue_give_back(a_claims bigint[], a_seqs bigint[], a_next bigint[], a_requeue boolean, a_delay bigint, a_reason text)
RETURNS void LANGUAGE plpgsql SET search_path TO :"schema", pg_temp SET jit TO off AS $$
DECLARE
    v_xid xid8 := pg_current_xact_id();
    v_slot int2 := coalesce(pg_sequence_last_value('queue_slot'), 0);
    v_claim_slot int2 := coalesce(pg_sequence_last_value('claim_slot'), 0);
    v_due timestamptz := clock_timestamp() + a_delay * interval '1 microsecond';
BEGIN
    -- Each of the parts asks for itself which messages are given up.
    WITH m AS MATERIALIZED (
        SELECT e.queue_id, e.attempt, e.lane, u.seq, e.enqueued_at, e.priority, e.key, e.correlation_id, e.causation_id, e.traceparent,
            e.tracestate, e.tenant, e.headers, coalesce(e.id, e.ids[u.seq - e.seq + 1]) AS id,
            coalesce(e.type, e.types[u.seq - e.seq + 1]) AS type, coalesce(e.data, e.datas[u.seq - e.seq + 1]) AS data,
            f.lane AS claim_lane, f.key_hash, u.next, CASE WHEN f.key_hash IS NULL THEN e.attempt ELSE f.attempt END AS tries,
            f.claim_id, coalesce(k.park_keys, true) AS park,
            NOT a_requeue OR (coalesce(k.max_attempts, 5) > 0
                AND CASE WHEN f.key_hash IS NULL THEN e.attempt ELSE f.attempt END >= coalesce(k.max_attempts, 5)) AS dead
        FROM unnest(a_claims, a_seqs, a_next) AS u (claim, seq, next)
        JOIN in_flight_events f ON f.claim_id = u.claim
        JOIN queues q ON q.queue_id = f.queue_id
        LEFT JOIN stream_configurations k ON k.kind = 'queue' AND k.name = q.name
        JOIN queue_events e ON e.queue_id = f.queue_id AND e.lane IN (f.lane, f.lane + 64)
            AND e.seq IN (u.seq, u.seq - (u.seq - 1) % 128) AND u.seq < e.seq + e.messages
        ORDER BY u.seq
    ), again AS (
        INSERT INTO queue_events (queue_id, slot, attempt, lane, xid, seq, enqueued_at, id, priority, type, data, key,
            correlation_id, causation_id, traceparent, tracestate, tenant, headers)
        SELECT queue_id, v_slot, attempt + 1, lane, v_xid, nextval('queue_seq'), enqueued_at, id, priority, type, data, key,
            correlation_id, causation_id, traceparent, tracestate, tenant, headers
        FROM m WHERE NOT dead AND key_hash IS NULL AND a_delay <= 0
    ), later AS (
        INSERT INTO queue_delayed (queue_id, attempt, lane, due, seq, enqueued_at, id, priority, type, data, key,
            correlation_id, causation_id, traceparent, tracestate, tenant, headers)
        SELECT queue_id, attempt + 1, lane, v_due, nextval('queue_seq'), enqueued_at, id, priority, type, data, key,
            correlation_id, causation_id, traceparent, tracestate, tenant, headers
        FROM m WHERE NOT dead AND key_hash IS NULL AND a_delay > 0
    ), next_in_line AS (
        INSERT INTO in_flight_events (queue_id, slot, attempt, lane, claim_id, token, messages, claimed_at, deadline, key_hash, seqs)
        SELECT queue_id, v_claim_slot, tries, claim_lane, next, 0, 1, clock_timestamp(), v_due, key_hash, ARRAY[seq]
        FROM m WHERE NOT dead AND key_hash IS NOT NULL
    ), parked AS (
        INSERT INTO queue_parked_keys (queue_id, lane, key_hash, key)
        SELECT DISTINCT queue_id, claim_lane, key_hash, key FROM m WHERE dead AND key_hash IS NOT NULL AND park
        ON CONFLICT DO NOTHING
    )
    INSERT INTO dead_letter_queue (queue_id, attempt, priority, lane, seq, enqueued_at, id, reason, type, data, key,
        correlation_id, causation_id, traceparent, tracestate, tenant, headers)
    SELECT queue_id, tries, priority, claim_lane, seq, enqueued_at, id, a_reason, type, data, key,
        correlation_id, causation_id, traceparent, tracestate, tenant, headers
    FROM m WHERE dead;
END
$$;

-- Ends deliveries whose messages could not be handled. Returns how many.
CREATE FUNCTION :"schema".queue_failed(a_claims bigint[], a_tokens int[], a_seqs bigint[], a_requeue boolean, a_delay bigint, a_reason text)
RETURNS bigint LANGUAGE plpgsql SET search_path TO :"schema", pg_temp SET jit TO off AS $$
DECLARE
    v_claims bigint[];
    v_seqs bigint[];
    v_next bigint[];
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    WITH t AS MATERIALIZED (
        SELECT DISTINCT f.slot, f.claim_id, f.messages, u.seq, f.key_hash
        FROM unnest(a_claims, a_tokens, a_seqs) AS u (claim, token, seq)
        JOIN in_flight_events f ON f.claim_id = u.claim AND f.token = u.token AND u.seq = ANY (f.seqs)
        WHERE f.consumer IS NOT NULL AND f.deadline > clock_timestamp()
          AND NOT EXISTS (SELECT FROM queue_closures k WHERE k.claim_id = u.claim AND k.seq = 0)
    ), x AS (
        INSERT INTO queue_closures (slot, kind, claim_id, seq, next_claim)
        SELECT slot, 'n', claim_id, CASE WHEN messages = 1 THEN 0 ELSE seq END,
            CASE WHEN key_hash IS NOT NULL THEN nextval('claim_seq') END
        FROM t ORDER BY claim_id, seq ON CONFLICT DO NOTHING RETURNING claim_id, seq, next_claim
    ) SELECT array_agg(t.claim_id), array_agg(t.seq), array_agg(x.next_claim) INTO v_claims, v_seqs, v_next
    FROM x JOIN t ON t.claim_id = x.claim_id AND x.seq IN (0, t.seq);
    IF v_claims IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM queue_give_back(v_claims, v_seqs, v_next, a_requeue, a_delay, a_reason);
    RETURN cardinality(v_claims);
END
$$;

-- Gives a delivery a new deadline and a new claim; nothing where it is not the consumer's any more.
CREATE FUNCTION :"schema".queue_extend(a_claim bigint, a_token int, a_seq bigint, a_visibility bigint)
RETURNS TABLE (claim_id bigint, token int) LANGUAGE plpgsql SET search_path TO :"schema", pg_temp SET jit TO off AS $$
#variable_conflict use_column
DECLARE
    v_next bigint := nextval('claim_seq');
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    RETURN QUERY
    WITH f AS MATERIALIZED (
        SELECT f.* FROM in_flight_events f WHERE f.claim_id = a_claim AND f.token = a_token AND a_seq = ANY (f.seqs)
          AND f.consumer IS NOT NULL AND f.deadline > clock_timestamp()
          AND NOT EXISTS (SELECT FROM queue_closures k WHERE k.claim_id = a_claim AND k.seq = 0)
    ), x AS (
        INSERT INTO queue_closures (slot, kind, claim_id, seq, next_claim)
        SELECT f.slot, 'e', a_claim, CASE WHEN f.messages = 1 THEN 0 ELSE a_seq END, v_next FROM f
        ON CONFLICT DO NOTHING RETURNING claim_id
    )
    INSERT INTO in_flight_events AS n (queue_id, slot, attempt, lane, claim_id, token, messages, claimed_at, deadline, consumer, key_hash, seqs)
    SELECT f.queue_id, coalesce(pg_sequence_last_value('claim_slot'), 0)::int2, f.attempt, f.lane, v_next, (random() * 2147483647)::int, 1,
        f.claimed_at, clock_timestamp() + a_visibility * interval '1 microsecond', f.consumer, f.key_hash, ARRAY[a_seq]
    FROM f JOIN x ON true
    RETURNING n.claim_id, n.token;
END
$$;
