-- Messages that the service's own transactions publish. Names are unqualified: the tables are beside the service's own.

-- The order of messages; drawn one at a time, so that of two transactions that follow each other the later has the higher.
CREATE SEQUENCE outbox_seq;
-- Into which of the two slots is written: a cell that can be set without leaving a dead row.
CREATE SEQUENCE outbox_slot MINVALUE 0 MAXVALUE 1 START 0;
-- The order of messages that were put aside.
CREATE SEQUENCE outbox_ord;

-- Append-only: nothing is updated or deleted here, and a slot whose messages were all carried is emptied as a whole.
-- `xid` is the writing transaction's, of the top level: what is new since a snapshot is found by it.
CREATE TABLE outbox_messages (
    slot           int2        NOT NULL,
    xid            xid8        NOT NULL,
    seq            bigint      NOT NULL,
    id             uuid        NOT NULL,
    topic          text        NOT NULL,
    type           text        NOT NULL,
    key            text,
    source         text        NOT NULL,
    data           json        NOT NULL,
    correlation_id text,
    causation_id   text,
    traceparent    text,
    tracestate     text,
    tenant         text,
    headers        json,
    created_at     timestamptz NOT NULL,
    not_before     timestamptz,
    deliver_by     timestamptz
) PARTITION BY LIST (slot);
CREATE TABLE outbox_messages_0 PARTITION OF outbox_messages FOR VALUES IN (0) WITH (autovacuum_enabled = off);
CREATE TABLE outbox_messages_1 PARTITION OF outbox_messages FOR VALUES IN (1) WITH (autovacuum_enabled = off);
CREATE UNIQUE INDEX outbox_messages_0_xid_idx ON outbox_messages_0 (xid, seq);
CREATE UNIQUE INDEX outbox_messages_1_xid_idx ON outbox_messages_1 (xid, seq);

-- How far the relay is, and who it is: the newest row counts. Every step of a relay adds the row after the one that it
-- knows, so of two relays only one gets on, and the other one's transaction fails as a whole.
--   lo   all that is visible in this snapshot was carried
--   hi   the end of the window being carried, of which all up to `pos` was; none between windows
--   top  the highest `seq` that was carried, by which a restored database tells old rows from new ones
CREATE TABLE outbox_cursor (
    slot      int2        NOT NULL,
    n         bigint      NOT NULL,
    epoch     bigint      NOT NULL,
    holder    text        NOT NULL,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    until     timestamptz NOT NULL,
    system    text        NOT NULL,
    lo        pg_snapshot NOT NULL,
    hi        pg_snapshot,
    pos       bigint      NOT NULL,
    top       bigint      NOT NULL,
    due       timestamptz NOT NULL,
    due_ord   bigint      NOT NULL,
    sent      bigint      NOT NULL
) PARTITION BY LIST (slot);
CREATE TABLE outbox_cursor_0 PARTITION OF outbox_cursor FOR VALUES IN (0) WITH (autovacuum_enabled = off);
CREATE TABLE outbox_cursor_1 PARTITION OF outbox_cursor FOR VALUES IN (1) WITH (autovacuum_enabled = off);
CREATE UNIQUE INDEX outbox_cursor_0_n_idx ON outbox_cursor_0 (n);
CREATE UNIQUE INDEX outbox_cursor_1_n_idx ON outbox_cursor_1 (n);
INSERT INTO outbox_cursor (slot, n, epoch, holder, until, system, lo, pos, top, due, due_ord, sent)
VALUES (0, 0, 0, '', '-infinity', '', '1:1:', 0, 0, '-infinity', 0, 0);

-- Messages that wait for their time. Only the relay writes here; what lies before its cursor was carried.
CREATE TABLE outbox_delayed (
    due            timestamptz NOT NULL,
    ord            bigint      NOT NULL,
    id             uuid        NOT NULL,
    topic          text        NOT NULL,
    type           text        NOT NULL,
    key            text,
    source         text        NOT NULL,
    data           json        NOT NULL,
    correlation_id text,
    causation_id   text,
    traceparent    text,
    tracestate     text,
    tenant         text,
    headers        json,
    created_at     timestamptz NOT NULL,
    not_before     timestamptz,
    deliver_by     timestamptz,
    PRIMARY KEY (due, ord)
);

-- Keys that a message could not be delivered of. A message without a key is a lane of its own. Without a `next_try` it
-- waits until its dead letter was retried or removed.
CREATE TABLE outbox_parked_keys (
    lane       text PRIMARY KEY,
    key        text,
    attempts   int         NOT NULL,
    next_try   timestamptz,
    since      timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_error text        NOT NULL
);
CREATE INDEX outbox_parked_keys_next_try_idx ON outbox_parked_keys (next_try);

-- Their messages, in order.
CREATE TABLE outbox_parked (
    lane           text        NOT NULL,
    ord            bigint      NOT NULL,
    id             uuid        NOT NULL,
    topic          text        NOT NULL,
    type           text        NOT NULL,
    key            text,
    source         text        NOT NULL,
    data           json        NOT NULL,
    correlation_id text,
    causation_id   text,
    traceparent    text,
    tracestate     text,
    tenant         text,
    headers        json,
    created_at     timestamptz NOT NULL,
    not_before     timestamptz,
    deliver_by     timestamptz,
    PRIMARY KEY (lane, ord)
);

-- Messages that were given up.
CREATE TABLE outbox_dead_letters (
    ord            bigint PRIMARY KEY,
    lane           text        NOT NULL,
    attempts       int         NOT NULL,
    reason         text        NOT NULL,
    dead_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    id             uuid        NOT NULL,
    topic          text        NOT NULL,
    type           text        NOT NULL,
    key            text,
    source         text        NOT NULL,
    data           json        NOT NULL,
    correlation_id text,
    causation_id   text,
    traceparent    text,
    tracestate     text,
    tenant         text,
    headers        json,
    created_at     timestamptz NOT NULL,
    not_before     timestamptz,
    deliver_by     timestamptz
);
CREATE INDEX outbox_dead_letters_lane_idx ON outbox_dead_letters (lane, ord);
