-- Hands out messages of one lane with keys, whose lock is held: of each key the first that is not done.
CREATE FUNCTION :"schema".queue_take_keyed(a_queue int, a_lane int, a_consumer text, a_max int, a_until timestamptz, a_hi pg_snapshot)
RETURNS TABLE (claim_id bigint, token int, seq bigint, attempt int2) LANGUAGE plpgsql
SET search_path TO :"schema", pg_temp AS $$
#variable_conflict use_column
DECLARE
    c in_flight_events;
    r record;
    v_hi pg_snapshot := a_hi;
    v_next bigint;
    v_fresh boolean := false;
    v_read int;
    v_room int;
    v_busy bigint[] := '{}';
    v_parked bigint[];
    v_open bigint[] := '{}';
    v_passed bigint[] := '{}';
    v_passed_keys bigint[] := '{}';
    v_seqs bigint[] := '{}';
    v_keys bigint[] := '{}';
    v_attempts int2[] := '{}';
    v_park bigint[] := '{}';
    v_late bigint[];
    v_moved boolean := false;
    v_slot int2 := coalesce(pg_sequence_last_value('claim_slot'), 0);
    v_now timestamptz := clock_timestamp();
    v_claims bigint[];
    v_before bigint[];
    v_before_keys bigint[];
BEGIN
    SELECT * INTO c FROM in_flight_events f WHERE f.queue_id = a_queue AND f.lane = a_lane AND f.lo IS NOT NULL
    ORDER BY f.claim_id DESC LIMIT 1;
    IF NOT FOUND THEN
        c.more := false; c.pos := 0; c.lo_seq := 0; c.hi_seq := 0; c.lo := '3:3:'; c.hi := '3:3:'; c.lo_next := '3';
        c.hi_next := '3'; c.passed := '{}'; c.passed_keys := '{}'; c.open_claims := '{}';
    END IF;
    -- Mostly there is nothing: no message behind those that were seen, none that may have come late, and nothing that was
    -- handed out and may come again. To know that costs a fraction of what follows.
    IF c.passed = '{}' AND pg_snapshot_xmin(c.hi) = c.hi_next
        AND (NOT c.more OR c.pos >= c.lo_seq OR pg_snapshot_xmin(c.lo) = c.lo_next)
        AND NOT EXISTS (SELECT FROM queue_events e WHERE e.queue_id = a_queue AND e.lane = a_lane
            AND e.seq > CASE WHEN c.more THEN greatest(c.pos, c.lo_seq) ELSE c.hi_seq END)
        AND NOT EXISTS (SELECT FROM unnest(c.open_claims) AS o (claim) WHERE NOT EXISTS (
            SELECT FROM queue_closures k WHERE k.claim_id = o.claim AND k.seq = 0 AND k.next_claim IS NULL OFFSET 0))
    THEN
        RETURN;
    END IF;

    -- What is not done, and what of that is to be handed out again. The tables are empty or full, whatever statistics say:
    -- each is asked once for each claim, by `OFFSET 0`, never joined as a whole.
    FOR r IN
        WITH RECURSIVE o AS (
            SELECT x AS claim FROM unnest(c.open_claims) x
            UNION ALL
            SELECT n.next_claim FROM o, LATERAL (
                SELECT k.next_claim FROM queue_closures k
                WHERE k.claim_id = o.claim AND k.seq = 0 AND k.next_claim IS NOT NULL OFFSET 0) AS n
        )
        SELECT f.claim_id, f.slot, f.consumer, f.deadline, f.key_hash, f.attempt, f.seqs[1] AS seq
        FROM o, LATERAL (
            SELECT i.* FROM in_flight_events i WHERE i.claim_id = o.claim AND i.queue_id = a_queue
            AND (SELECT count(*) FROM queue_closures k WHERE k.claim_id = o.claim AND k.seq = 0) = 0 OFFSET 0) AS f
        ORDER BY f.claim_id
    LOOP
        v_busy := v_busy || r.key_hash;
        IF r.consumer IS NULL AND r.deadline <= v_now AND cardinality(v_seqs) < a_max THEN
            INSERT INTO queue_closures (slot, kind, claim_id, seq) VALUES (r.slot, 'r', r.claim_id, 0);
            v_seqs := v_seqs || r.seq; v_keys := v_keys || r.key_hash; v_attempts := v_attempts || (r.attempt + 1)::int2;
        ELSE
            v_open := v_open || r.claim_id;
        END IF;
    END LOOP;
    -- After it: whoever made a dead letter meanwhile is seen here.
    SELECT coalesce(array_agg(p.key_hash), '{}') INTO v_parked FROM queue_parked_keys p
    WHERE p.queue_id = a_queue AND p.lane = a_lane;

    -- Each key is in `v_busy` once: the loop is as long as what waits, and looks through it each time.
    IF c.passed_keys <@ v_busy AND NOT c.passed_keys && v_parked THEN
        v_passed := c.passed; v_passed_keys := c.passed_keys;
    ELSE
        -- As variables of their own they are unpacked once; in the row they are each time.
        v_before := c.passed; v_before_keys := c.passed_keys;
        FOR i IN 1 .. cardinality(v_before) LOOP
            IF v_before_keys[i] = ANY (v_parked) THEN
                v_park := v_park || v_before[i]; v_moved := true;
            ELSIF v_before_keys[i] = ANY (v_busy) THEN
                v_passed := v_passed || v_before[i]; v_passed_keys := v_passed_keys || v_before_keys[i];
            ELSE
                v_busy := v_busy || v_before_keys[i];
                IF cardinality(v_seqs) >= a_max THEN
                    v_passed := v_passed || v_before[i]; v_passed_keys := v_passed_keys || v_before_keys[i];
                ELSE
                    v_seqs := v_seqs || v_before[i]; v_keys := v_keys || v_before_keys[i]; v_attempts := v_attempts || 1::int2;
                END IF;
            END IF;
        END LOOP;
    END IF;

    WHILE cardinality(v_seqs) < a_max AND cardinality(v_passed) < 1000 LOOP
        IF NOT c.more THEN
            EXIT WHEN v_fresh;
            v_fresh := true;
            c.lo := c.hi; c.lo_next := c.hi_next; c.lo_seq := c.hi_seq; c.pos := 0;
            c.hi := v_hi;
        END IF;
        v_room := least(greatest(a_max, 50), 1000 - cardinality(v_passed));
        v_read := 0;
        c.more := false;
        v_late := '{}';
        IF c.pos < c.lo_seq AND pg_snapshot_xmin(c.lo) <> c.lo_next THEN
            v_late := queue_late(a_queue, a_lane, c.lo, c.hi, c.lo_next, c.pos, c.lo_seq, v_room);
        END IF;
        FOR r IN
            SELECT e.seq, e.key, hashtextextended(e.key, 0) AS key_hash
            FROM (
                SELECT u.seq FROM (
                    SELECT l.seq FROM unnest(v_late) AS l (seq)
                    UNION ALL
                    (SELECT e.seq FROM queue_events e
                    WHERE e.queue_id = a_queue AND e.lane = a_lane AND e.seq > greatest(c.pos, c.lo_seq)
                      AND pg_visible_in_snapshot(e.xid, c.hi) AND NOT pg_visible_in_snapshot(e.xid, c.lo)
                    ORDER BY e.seq LIMIT v_room)
                ) AS u ORDER BY u.seq LIMIT v_room
            ) AS w, LATERAL (
                SELECT m.seq, m.key FROM queue_events m WHERE m.queue_id = a_queue AND m.lane = a_lane AND m.seq = w.seq OFFSET 0
            ) AS e
            ORDER BY e.seq
        LOOP
            v_read := v_read + 1;
            v_moved := true;
            c.pos := r.seq;
            c.hi_seq := greatest(c.hi_seq, r.seq);
            IF r.key_hash = ANY (v_parked) THEN
                v_park := v_park || r.seq;
            ELSIF r.key_hash = ANY (v_busy) THEN
                v_passed := v_passed || r.seq; v_passed_keys := v_passed_keys || r.key_hash;
            ELSE
                v_seqs := v_seqs || r.seq; v_keys := v_keys || r.key_hash; v_attempts := v_attempts || 1::int2;
                v_busy := v_busy || r.key_hash;
            END IF;
            IF cardinality(v_seqs) >= a_max THEN
                c.more := true;
                EXIT;
            END IF;
        END LOOP;
        c.more := c.more OR v_read >= v_room;
    END LOOP;
    IF cardinality(v_seqs) = 0 AND NOT v_moved THEN
        RETURN;
    END IF;
    IF v_park <> '{}' THEN
        INSERT INTO queue_parked (queue_id, attempt, priority, lane, seq, enqueued_at, id, type, data, key, correlation_id,
            causation_id, traceparent, tracestate, tenant, headers)
        SELECT e.queue_id, e.attempt, e.priority, a_lane, e.seq, e.enqueued_at, e.id, e.type, e.data, e.key, e.correlation_id,
            e.causation_id, e.traceparent, e.tracestate, e.tenant, e.headers
        FROM unnest(v_park) WITH ORDINALITY AS u (seq, o) JOIN queue_events e ON e.queue_id = a_queue
            AND e.lane IN (a_lane, a_lane + 64) AND e.seq = u.seq ORDER BY u.o;
    END IF;
    -- After `hi`: what had an id then has a smaller one.
    IF v_fresh THEN
        c.hi_next := pg_current_xact_id();
    END IF;
    SELECT coalesce(array_agg(nextval('claim_seq')), '{}') INTO v_claims FROM generate_series(1, cardinality(v_seqs));
    v_next := nextval('claim_seq');
    INSERT INTO in_flight_events (queue_id, slot, lane, claim_id, token, messages, claimed_at, deadline, seqs, more, pos, lo_seq, hi_seq,
        lo_next, hi_next, lo, hi, passed, passed_keys, open_claims)
    VALUES (a_queue, v_slot, a_lane, v_next, 0, 0, v_now, 'infinity', '{}', c.more, c.pos, c.lo_seq, c.hi_seq, c.lo_next, c.hi_next, c.lo,
        c.hi, v_passed, v_passed_keys, v_open || v_claims);
    RETURN QUERY
    INSERT INTO in_flight_events AS f (queue_id, slot, attempt, lane, claim_id, token, messages, claimed_at, deadline, consumer,
        key_hash, seqs)
    SELECT a_queue, v_slot, u.attempt, a_lane, u.claim, (random() * 2147483647)::int, 1, v_now, a_until, a_consumer, u.key_hash, ARRAY[u.seq]
    FROM unnest(v_claims, v_seqs, v_keys, v_attempts) AS u (claim, seq, key_hash, attempt)
    RETURNING f.claim_id, f.token, f.seqs[1], f.attempt;
END
$$;
