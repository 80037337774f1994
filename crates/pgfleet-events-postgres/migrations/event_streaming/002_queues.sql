-- Queues: messages that are handed out, until somebody says that they are done.
--
-- Messages, claims and the ends of claims are only inserted into; tables are emptied by TRUNCATE, in turn. So nothing that
-- is done for a message leaves a dead row, whatever else holds old rows back.
--
-- What a statement puts in that needs no column of its own is a pack: one row with an array for each of what differs, with a
-- number for each message. A pack is at most 128 messages and begins at the first of 128 numbers, so that the pack which a
-- message may be in is known from its number.
--
-- A message belongs to a lane. The newest claim of a lane that has snapshots is its cursor: what was visible in `lo` has been
-- handed out, and of what is visible in `hi` that with a `seq` up to `pos`. `slot` says in which of the two tables a row is,
-- and nothing depends on it.

-- In steps, so that a statement that puts up to so many messages in draws from it once.
CREATE SEQUENCE :"schema".queue_seq INCREMENT BY 1024 CACHE 1;
CREATE SEQUENCE :"schema".claim_seq CACHE 1;
-- Cells: which of the two tables is written to.
CREATE SEQUENCE :"schema".queue_slot MINVALUE 0 MAXVALUE 1 START 0;
CREATE SEQUENCE :"schema".claim_slot MINVALUE 0 MAXVALUE 1 START 0;

CREATE TABLE :"schema".queues (
    queue_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL CONSTRAINT queues_name_key UNIQUE,
    lanes int NOT NULL DEFAULT 4,
    -- How many lanes messages with a key have; none until the first.
    key_lanes int NOT NULL DEFAULT 0,
    -- Priorities that were used; the place in it, times 256, is the first lane.
    priorities int2[] NOT NULL DEFAULT '{0}',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE :"schema".queue_events (
    queue_id int NOT NULL,
    slot int2 NOT NULL,
    attempt int2 NOT NULL,
    lane int NOT NULL,
    -- Of the transaction, drawn before anything else; `seq` is drawn after it.
    xid xid8 NOT NULL,
    seq bigint NOT NULL,
    enqueued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- How many messages, and so how many numbers from `seq` on.
    messages int NOT NULL DEFAULT 1,
    id uuid,
    priority int2 NOT NULL DEFAULT 0,
    type text COLLATE "C",
    data jsonb,
    key text COLLATE "C",
    correlation_id text,
    causation_id text,
    traceparent text,
    tracestate text,
    tenant text,
    headers jsonb,
    -- On the first of the rows that one statement put into a lane: how many; none on the others. So what a transaction has put
    -- in is found from one row, and not from an entry of an index for each.
    run int DEFAULT 1,
    -- Of a pack, of each of its messages in order; `id`, `type` and `data` are none then.
    ids uuid[],
    types text[] COLLATE "C",
    datas jsonb[],
    CONSTRAINT queue_events_pack_check CHECK (CASE WHEN ids IS NULL THEN messages = 1 AND id IS NOT NULL AND type IS NOT NULL
        AND data IS NOT NULL ELSE messages BETWEEN 1 AND 128 AND seq % 128 = 1 END)
) PARTITION BY LIST (slot);
-- Not compressed: that would take longer than to write it.
ALTER TABLE :"schema".queue_events ALTER ids SET STORAGE EXTERNAL, ALTER types SET STORAGE EXTERNAL, ALTER datas SET STORAGE EXTERNAL;
CREATE TABLE :"schema".queue_events_0 PARTITION OF :"schema".queue_events FOR VALUES IN (0)
    WITH (autovacuum_enabled = off, toast_tuple_target = 4096);
CREATE TABLE :"schema".queue_events_1 PARTITION OF :"schema".queue_events FOR VALUES IN (1)
    WITH (autovacuum_enabled = off, toast_tuple_target = 4096);
CREATE INDEX queue_events_lane_idx ON :"schema".queue_events (queue_id, lane, seq);
CREATE INDEX queue_events_xid_idx ON :"schema".queue_events (xid, seq) WHERE run IS NOT NULL;

CREATE TABLE :"schema".in_flight_events (
    queue_id int NOT NULL,
    slot int2 NOT NULL,
    attempt int2 NOT NULL DEFAULT 0,
    lane int NOT NULL,
    claim_id bigint NOT NULL,
    token int NOT NULL,
    -- How many messages it is about; a single one ends with the whole claim.
    messages int NOT NULL,
    claimed_at timestamptz NOT NULL,
    deadline timestamptz NOT NULL,
    -- Nobody: a message with a key that waits to be handed out again.
    consumer text,
    -- Of the key, where there is one.
    key_hash bigint,
    seqs bigint[] NOT NULL,
    -- What follows is the cursor's.
    more boolean,
    pos bigint,
    -- The highest seq that was seen up to `lo`, and up to `hi`.
    lo_seq bigint,
    hi_seq bigint,
    -- Every transaction that had an id when `lo`, or `hi`, was taken has a smaller one than this. The upper end of a
    -- snapshot does not say that: it is the latest that had *ended*.
    lo_next xid8,
    hi_next xid8,
    lo pg_snapshot,
    hi pg_snapshot,
    -- Messages with keys that were passed by because another one of their keys was not done; and the claims of those.
    passed bigint[],
    passed_keys bigint[],
    open_claims bigint[]
) PARTITION BY LIST (slot);
CREATE TABLE :"schema".in_flight_events_0 PARTITION OF :"schema".in_flight_events FOR VALUES IN (0) WITH (autovacuum_enabled = off);
CREATE TABLE :"schema".in_flight_events_1 PARTITION OF :"schema".in_flight_events FOR VALUES IN (1) WITH (autovacuum_enabled = off);
CREATE INDEX in_flight_events_cursor_idx ON :"schema".in_flight_events (queue_id, lane, claim_id) WHERE lo IS NOT NULL;
CREATE INDEX in_flight_events_claim_idx ON :"schema".in_flight_events (claim_id);
CREATE INDEX in_flight_events_deadline_idx ON :"schema".in_flight_events (deadline);

-- How claims ended. Whoever inserts first has ended it: that is the whole fence.
CREATE TABLE :"schema".queue_closures (
    slot int2 NOT NULL,
    -- a: done; n: given back; x: its deadline had passed; e: extended; r: handed out again.
    kind "char" NOT NULL,
    claim_id bigint NOT NULL,
    -- The message; 0 for the whole claim.
    seq bigint NOT NULL,
    -- The claim that went on with it.
    next_claim bigint,
    CONSTRAINT queue_closures_key UNIQUE (claim_id, seq, slot)
) PARTITION BY LIST (slot);
CREATE TABLE :"schema".queue_closures_0 PARTITION OF :"schema".queue_closures FOR VALUES IN (0) WITH (autovacuum_enabled = off);
CREATE TABLE :"schema".queue_closures_1 PARTITION OF :"schema".queue_closures FOR VALUES IN (1) WITH (autovacuum_enabled = off);

-- Messages that wait for their time; they become messages of the queue by the sweep.
CREATE TABLE :"schema".queue_delayed (
    queue_id int NOT NULL, attempt int2 NOT NULL, priority int2 NOT NULL, lane int NOT NULL, due timestamptz NOT NULL,
    seq bigint NOT NULL, enqueued_at timestamptz NOT NULL, id uuid NOT NULL,
    type text COLLATE "C" NOT NULL, data jsonb NOT NULL, key text COLLATE "C", correlation_id text, causation_id text,
    traceparent text, tracestate text, tenant text, headers jsonb
);
CREATE INDEX queue_delayed_due_idx ON :"schema".queue_delayed (due, seq);
CREATE INDEX queue_delayed_key_idx ON :"schema".queue_delayed (queue_id, key) WHERE key IS NOT NULL;

CREATE TABLE :"schema".dead_letter_queue (
    queue_id int NOT NULL, attempt int2 NOT NULL, priority int2 NOT NULL, lane int NOT NULL, seq bigint NOT NULL,
    enqueued_at timestamptz NOT NULL, id uuid NOT NULL, dead_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    reason text NOT NULL, type text COLLATE "C" NOT NULL, data jsonb NOT NULL, key text COLLATE "C", correlation_id text,
    causation_id text, traceparent text, tracestate text, tenant text, headers jsonb
);
CREATE INDEX dead_letter_queue_seq_idx ON :"schema".dead_letter_queue (queue_id, seq);
CREATE INDEX dead_letter_queue_at_idx ON :"schema".dead_letter_queue (queue_id, dead_at);

-- Keys that have a dead letter, and what has come for them since, in order.
CREATE TABLE :"schema".queue_parked_keys (
    queue_id int NOT NULL, lane int NOT NULL, key_hash bigint NOT NULL, key text COLLATE "C" NOT NULL,
    parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT queue_parked_keys_pkey PRIMARY KEY (queue_id, lane, key)
);
CREATE TABLE :"schema".queue_parked (
    queue_id int NOT NULL, attempt int2 NOT NULL, priority int2 NOT NULL, lane int NOT NULL,
    place bigint GENERATED ALWAYS AS IDENTITY, seq bigint NOT NULL, enqueued_at timestamptz NOT NULL, id uuid NOT NULL,
    type text COLLATE "C" NOT NULL, data jsonb NOT NULL, key text COLLATE "C" NOT NULL, correlation_id text,
    causation_id text, traceparent text, tracestate text, tenant text, headers jsonb,
    CONSTRAINT queue_parked_pkey PRIMARY KEY (queue_id, key, place)
);

-- Ids that must not come twice.
CREATE TABLE :"schema".queue_dedup (
    queue_id int NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp(), dedup_id text COLLATE "C" NOT NULL,
    CONSTRAINT queue_dedup_pkey PRIMARY KEY (queue_id, dedup_id)
);
CREATE INDEX queue_dedup_at_idx ON :"schema".queue_dedup (queue_id, at);

CREATE TABLE :"schema".queue_counts (queue_id int NOT NULL, redelivered bigint NOT NULL);

-- The cluster whose numbers of transactions are in the tables.
CREATE TABLE :"schema".queue_cluster (system_identifier bigint NOT NULL);
INSERT INTO :"schema".queue_cluster SELECT system_identifier FROM pg_control_system();

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

-- Messages that somebody has, or that wait to be handed out again (no consumer).
CREATE VIEW :"schema".queue_open_claims AS
SELECT f.queue_id, f.lane, f.slot, f.claim_id, f.token, f.consumer, f.claimed_at, f.deadline, f.attempt, f.key_hash, f.messages, u.seq
FROM :"schema".in_flight_events f, unnest(f.seqs) AS u (seq)
WHERE NOT EXISTS (SELECT FROM :"schema".queue_closures k WHERE k.claim_id = f.claim_id AND k.seq = 0)
  AND (f.messages = 1 OR NOT EXISTS (SELECT FROM :"schema".queue_closures k WHERE k.claim_id = f.claim_id AND k.seq = u.seq));

-- The newest cursor of each lane.
CREATE VIEW :"schema".queue_cursors AS
SELECT f.* FROM :"schema".queues q, unnest(q.priorities) WITH ORDINALITY AS b (p, o), generate_series(0, 191) AS l,
    LATERAL (SELECT * FROM :"schema".in_flight_events f WHERE f.queue_id = q.queue_id AND f.lane = (b.o - 1) * 256 + l AND f.lo IS NOT NULL
             ORDER BY f.claim_id DESC LIMIT 1) AS f
WHERE l < q.lanes OR l >= 128 AND l < 128 + q.key_lanes AND b.o = 1;

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

-- Rows with messages that were not handed out yet, of lanes that are read: those from `from_seq` on.
CREATE VIEW :"schema".queue_waiting AS
WITH c AS MATERIALIZED (SELECT queue_id, lane, lo, hi, more, pos FROM :"schema".queue_cursors)
SELECT e.*, CASE WHEN c.more AND pg_visible_in_snapshot(e.xid, c.hi) THEN greatest(e.seq, c.pos + 1) ELSE e.seq END AS from_seq
FROM :"schema".queue_events e
LEFT JOIN c ON c.queue_id = e.queue_id AND c.lane = e.lane
WHERE e.lane % 256 < 192 AND (c.lo IS NULL
    OR NOT pg_visible_in_snapshot(e.xid, c.lo)
       AND (NOT pg_visible_in_snapshot(e.xid, c.hi) OR c.more AND e.seq + e.messages > c.pos + 1));

-- Their messages.
CREATE VIEW :"schema".queue_ready AS
SELECT w.queue_id, w.slot, w.attempt, w.lane, w.xid, m.seq, w.enqueued_at, m.id, w.priority, m.type, m.data, w.key, w.correlation_id,
    w.causation_id, w.traceparent, w.tracestate, w.tenant, w.headers
FROM :"schema".queue_waiting w, LATERAL (
    SELECT w.seq, w.id, w.type, w.data WHERE w.ids IS NULL
    UNION ALL SELECT w.seq + u.o - 1, u.id, u.type, u.data
    FROM unnest(w.ids, w.types, w.datas) WITH ORDINALITY AS u (id, type, data, o)
) AS m WHERE m.seq >= w.from_seq;

-- Makes rows of packs that hold some of these messages and others beside them. Meanwhile nobody may take from the lanes, nor
-- carry rows over into the other table.
CREATE FUNCTION :"schema".queue_unpack(a_queue int, a_lanes int[], a_seqs bigint[]) RETURNS void LANGUAGE sql
SET search_path TO :"schema", pg_temp AS $$
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

-- Messages of what `queue_ready` no longer holds that are needed still.
CREATE VIEW :"schema".queue_held AS
SELECT o.queue_id, o.seq FROM :"schema".queue_open_claims o
UNION ALL
SELECT c.queue_id, p.seq FROM :"schema".queue_cursors c, unnest(c.passed) AS p (seq);

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
