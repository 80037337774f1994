-- Hands out messages: a row for each lane that some came from. `claims` has one for each `messages` of them, which is at most
-- `a_each`. A row without claims says that lanes were passed by because others were at them.
CREATE FUNCTION :"schema".queue_take(a_queue int, a_consumer text, a_max int, a_each int, a_visibility bigint, a_wait boolean)
RETURNS TABLE (claims bigint[], tokens int[], messages int, deadline timestamptz, seqs bigint[], attempts int2[],
    enqueued_at timestamptz[], ids uuid[], priorities int2[], types text[], data jsonb[], keys text[], correlation_ids text[],
    causation_ids text[], traceparents text[], tracestates text[], tenants text[], headers jsonb[]) LANGUAGE plpgsql
SET search_path TO :"schema", pg_temp SET enable_seqscan TO off SET enable_bitmapscan TO off SET enable_sort TO off
SET jit TO off SET plan_cache_mode TO force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    q queues;
    c in_flight_events;
    v_base bigint := hashtextextended(current_schema(), a_queue);
    v_hi pg_snapshot;
    v_left int := a_max;
    v_start int;
    v_block int;
    v_lane int;
    v_count int;
    v_lanes int;
    v_skipped boolean := false;
    v_wait boolean := a_wait;
    v_fresh boolean;
    v_from bigint;
    v_late bigint[];
    v_attempts int2[];
    v_claims int;
    v_again bigint;
    v_redelivered bigint := 0;
    v_slot int2 := coalesce(pg_sequence_last_value('claim_slot'), 0);
    v_now timestamptz := clock_timestamp();
    v_until timestamptz := v_now + a_visibility * interval '1 microsecond';
BEGIN
    IF pg_current_xact_id_if_assigned() IS NOT NULL OR current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'messages are handed out in a transaction of its own, at read committed';
    END IF;
    -- What a crash takes back is handed out again.
    PERFORM set_config('synchronous_commit', 'off', true);
    v_hi := pg_current_snapshot();
    SELECT * INTO q FROM queues WHERE queue_id = a_queue;
    FOR v_block IN SELECT b.o - 1 FROM unnest(q.priorities) WITH ORDINALITY AS b (p, o) ORDER BY b.p DESC LOOP
        v_lanes := q.lanes + CASE WHEN v_block = 0 THEN q.key_lanes ELSE 0 END;
        v_start := floor(random() * v_lanes);
        FOR i IN 0 .. v_lanes - 1 LOOP
            v_lane := (v_start + i) % v_lanes;
            v_lane := v_block * 256 + CASE WHEN v_lane < q.lanes THEN v_lane ELSE 128 + v_lane - q.lanes END;
            IF v_wait THEN
                -- Only the first: whoever holds one does not wait for another.
                PERFORM pg_advisory_xact_lock(v_base + v_lane);
                v_wait := false;
            ELSIF NOT pg_try_advisory_xact_lock(v_base + v_lane) THEN
                v_skipped := true;
                CONTINUE;
            END IF;
            IF pg_current_xact_id_if_assigned() IS NULL THEN
                v_hi := pg_current_snapshot();
            END IF;
            IF v_lane % 256 >= 128 THEN
                SELECT array_agg(t.claim_id), array_agg(t.token), array_agg(t.seq), array_agg(t.attempt)
                INTO claims, tokens, seqs, v_attempts
                FROM queue_take_keyed(a_queue, v_lane, a_consumer, v_left, v_until, v_hi) t;
                CONTINUE WHEN seqs IS NULL;
                messages := 1; deadline := v_until;
                SELECT m.* INTO attempts, enqueued_at, ids, priorities, types, data, keys, correlation_ids, causation_ids, traceparents,
                    tracestates, tenants, headers
                FROM queue_messages(a_queue, v_lane, seqs) m;
                attempts := v_attempts;
                RETURN NEXT;
                v_left := v_left - cardinality(seqs);
                EXIT WHEN v_left <= 0;
                CONTINUE;
            END IF;
            SELECT f.more, f.pos, f.lo_seq, f.hi_seq, f.lo_next, f.hi_next, f.lo, f.hi
            INTO c.more, c.pos, c.lo_seq, c.hi_seq, c.lo_next, c.hi_next, c.lo, c.hi
            FROM in_flight_events f WHERE f.queue_id = a_queue AND f.lane = v_lane AND f.lo IS NOT NULL
            ORDER BY f.claim_id DESC LIMIT 1;
            IF NOT FOUND THEN
                c.more := false; c.pos := 0; c.lo_seq := 0; c.hi_seq := 0; c.lo := '3:3:'; c.hi := '3:3:'; c.lo_next := '3';
                c.hi_next := '3';
            END IF;
            v_fresh := false;
            LOOP
                IF NOT c.more THEN
                    v_fresh := true;
                    c.lo := c.hi; c.lo_next := c.hi_next; c.lo_seq := c.hi_seq; c.pos := 0;
                    c.hi := v_hi;
                END IF;
                v_late := '{}';
                IF c.pos < c.lo_seq AND pg_snapshot_xmin(c.lo) <> c.lo_next THEN
                    v_late := queue_late(a_queue, v_lane, c.lo, c.hi, c.lo_next, c.pos, c.lo_seq, v_left);
                END IF;
                v_from := greatest(c.pos, c.lo_seq);
                -- Mostly there is nothing, and to know that costs a fraction of what follows.
                v_count := 0;
                IF v_late <> '{}'
                    OR EXISTS (SELECT FROM queue_events e WHERE e.queue_id = a_queue AND e.lane = v_lane AND e.seq > v_from)
                    OR c.more AND EXISTS (SELECT FROM queue_events p WHERE p.queue_id = a_queue AND p.lane = v_lane
                        AND p.seq = v_from - (v_from - 1) % 128 AND p.seq + p.messages > v_from + 1)
                THEN
                    -- First what is late, then what comes behind it; each in order, which the lists are taken in.
                    SELECT coalesce(array_agg(w.seq), '{}'), array_agg(w.attempt), array_agg(w.enqueued_at), array_agg(w.id),
                        array_agg(w.priority), array_agg(w.type), array_agg(w.data),
                        CASE WHEN count(w.correlation_id) > 0 THEN array_agg(w.correlation_id) END,
                        CASE WHEN count(w.causation_id) > 0 THEN array_agg(w.causation_id) END,
                        CASE WHEN count(w.traceparent) > 0 THEN array_agg(w.traceparent) END,
                        CASE WHEN count(w.tracestate) > 0 THEN array_agg(w.tracestate) END,
                        CASE WHEN count(w.tenant) > 0 THEN array_agg(w.tenant) END,
                        CASE WHEN count(w.headers) > 0 THEN array_agg(w.headers) END,
                        count(*) FILTER (WHERE w.attempt > 1)
                    INTO seqs, attempts, enqueued_at, ids, priorities, types, data, correlation_ids, causation_ids, traceparents,
                        tracestates, tenants, headers, v_again
                    FROM (
                        SELECT l.* FROM queue_pick(a_queue, v_lane, v_late) AS l WHERE v_late <> '{}'
                        UNION ALL
                        (SELECT m.seq, e.attempt, e.enqueued_at, m.id, e.priority, m.type, m.data, e.correlation_id, e.causation_id,
                            e.traceparent, e.tracestate, e.tenant, e.headers
                        FROM (
                            SELECT e.* FROM queue_events e
                            WHERE e.queue_id = a_queue AND e.lane = v_lane
                              -- Or from the pack on of which a part was handed out.
                              AND e.seq >= coalesce((
                                SELECT p.seq FROM queue_events p WHERE c.more AND p.queue_id = a_queue AND p.lane = v_lane
                                  AND p.seq = v_from - (v_from - 1) % 128 AND p.seq + p.messages > v_from + 1), v_from + 1)
                              AND pg_visible_in_snapshot(e.xid, c.hi) AND NOT pg_visible_in_snapshot(e.xid, c.lo)
                            ORDER BY e.seq LIMIT v_left - cardinality(v_late)
                        ) AS e, LATERAL (
                            SELECT e.seq, e.id, e.type, e.data WHERE e.ids IS NULL
                            UNION ALL SELECT e.seq + k.done + u.o - 1, u.id, u.type, u.data
                            FROM (SELECT greatest(v_from + 1 - e.seq, 0)::int AS done) AS k,
                                unnest(e.ids[k.done + 1 : k.done + v_left], e.types[k.done + 1 : k.done + v_left],
                                    e.datas[k.done + 1 : k.done + v_left]) WITH ORDINALITY AS u (id, type, data, o)
                        ) AS m LIMIT v_left - cardinality(v_late))
                    ) AS w;
                    v_count := cardinality(seqs);
                END IF;
                EXIT WHEN v_count > 0 OR v_fresh;
                c.more := false;
            END LOOP;
            CONTINUE WHEN v_count = 0;
            IF v_fresh THEN
                -- After `hi`: what had an id then has a smaller one.
                c.hi_next := pg_current_xact_id();
            END IF;
            c.pos := seqs[v_count];
            IF v_count <= a_each THEN
                c.claim_id := nextval('claim_seq');
                c.token := (random() * 2147483647)::int;
                INSERT INTO in_flight_events (queue_id, slot, lane, claim_id, token, messages, claimed_at, deadline, consumer, seqs, more, pos,
                    lo_seq, hi_seq, lo_next, hi_next, lo, hi)
                VALUES (a_queue, v_slot, v_lane, c.claim_id, c.token, v_count, v_now, v_until, a_consumer, seqs, v_count = v_left,
                    c.pos, c.lo_seq, greatest(c.hi_seq, c.pos), c.lo_next, c.hi_next, c.lo, c.hi);
                claims := ARRAY[c.claim_id]; tokens := ARRAY[c.token]; messages := v_count;
            ELSE
                -- A claim for each who asked: it ends with his acknowledgement. The newest one is the cursor.
                v_claims := (v_count + a_each - 1) / a_each;
                SELECT array_agg(nextval('claim_seq')), array_agg((random() * 2147483647)::int) INTO claims, tokens
                FROM generate_series(1, v_claims);
                INSERT INTO in_flight_events (queue_id, slot, lane, claim_id, token, messages, claimed_at, deadline, consumer, seqs)
                SELECT a_queue, v_slot, v_lane, claims[i], tokens[i], a_each, v_now, v_until, a_consumer, seqs[(i - 1) * a_each + 1 : i * a_each]
                FROM generate_series(1, v_claims - 1) AS i;
                INSERT INTO in_flight_events (queue_id, slot, lane, claim_id, token, messages, claimed_at, deadline, consumer, seqs, more, pos,
                    lo_seq, hi_seq, lo_next, hi_next, lo, hi)
                VALUES (a_queue, v_slot, v_lane, claims[v_claims], tokens[v_claims], v_count - (v_claims - 1) * a_each, v_now, v_until,
                    a_consumer, seqs[(v_claims - 1) * a_each + 1 :], v_count = v_left,
                    c.pos, c.lo_seq, greatest(c.hi_seq, c.pos), c.lo_next, c.hi_next, c.lo, c.hi);
                messages := a_each;
            END IF;
            deadline := v_until; keys := NULL;
            v_redelivered := v_redelivered + v_again;
            RETURN NEXT;
            v_left := v_left - v_count;
            EXIT WHEN v_left <= 0;
        END LOOP;
        EXIT WHEN v_left <= 0;
    END LOOP;
    IF v_redelivered > 0 THEN
        INSERT INTO queue_counts VALUES (a_queue, v_redelivered);
    END IF;
    IF v_left = a_max AND v_skipped THEN
        claims := NULL;
        RETURN NEXT;
    END IF;
END
$$;
