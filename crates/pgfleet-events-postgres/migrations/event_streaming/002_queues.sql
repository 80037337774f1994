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

-- Messages of what `queue_ready` no longer holds that are needed still.
CREATE VIEW :"schema".queue_held AS
SELECT o.queue_id, o.seq FROM :"schema".queue_open_claims o
UNION ALL
SELECT c.queue_id, p.seq FROM :"schema".queue_cursors c, unnest(c.passed) AS p (seq);
