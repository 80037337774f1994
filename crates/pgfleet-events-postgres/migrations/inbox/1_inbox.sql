-- Messages that were handled, so that each is handled once. Names are unqualified: the tables are beside the service's own.

-- One slot per day in which messages were written, ten in turn: the days that a message may be from, tomorrow's, and at
-- least one that is to be emptied. Emptying a slot asks no message row and leaves no dead ones.
CREATE TABLE inbox_messages (
    slot       int2 NOT NULL,
    consumer   text NOT NULL,
    message_id uuid NOT NULL,
    day        int  NOT NULL,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (slot, consumer, message_id)
) PARTITION BY LIST (slot);
CREATE TABLE inbox_messages_0 PARTITION OF inbox_messages FOR VALUES IN (0);
CREATE TABLE inbox_messages_1 PARTITION OF inbox_messages FOR VALUES IN (1);
CREATE TABLE inbox_messages_2 PARTITION OF inbox_messages FOR VALUES IN (2);
CREATE TABLE inbox_messages_3 PARTITION OF inbox_messages FOR VALUES IN (3);
CREATE TABLE inbox_messages_4 PARTITION OF inbox_messages FOR VALUES IN (4);
CREATE TABLE inbox_messages_5 PARTITION OF inbox_messages FOR VALUES IN (5);
CREATE TABLE inbox_messages_6 PARTITION OF inbox_messages FOR VALUES IN (6);
CREATE TABLE inbox_messages_7 PARTITION OF inbox_messages FOR VALUES IN (7);
CREATE TABLE inbox_messages_8 PARTITION OF inbox_messages FOR VALUES IN (8);
CREATE TABLE inbox_messages_9 PARTITION OF inbox_messages FOR VALUES IN (9);

-- The order of messages that were put aside.
CREATE SEQUENCE inbox_ord;

-- Keys that a message could not be handled of. A message without a key is a lane of its own. Without a `next_try` it waits
-- until its dead letter was retried or removed. Whoever handles or adds messages of a lane holds its row's lock.
CREATE TABLE inbox_parked_keys (
    consumer   text NOT NULL,
    lane       text NOT NULL,
    key        text,
    attempts   int         NOT NULL,
    next_try   timestamptz,
    since      timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_error text        NOT NULL,
    PRIMARY KEY (consumer, lane)
);
CREATE INDEX inbox_parked_keys_next_try_idx ON inbox_parked_keys (consumer, next_try);

-- Their messages, in order; `inbox_messages` has them already.
CREATE TABLE inbox_parked (
    consumer text   NOT NULL,
    lane     text   NOT NULL,
    ord      bigint NOT NULL DEFAULT nextval('inbox_ord'),
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
    written_at     timestamptz NOT NULL,
    PRIMARY KEY (consumer, lane, ord)
);

-- Messages that were given up, or refused because they are older than what the inbox remembers.
CREATE TABLE inbox_dead_letters (
    consumer text   NOT NULL,
    ord      bigint NOT NULL DEFAULT nextval('inbox_ord'),
    lane     text   NOT NULL,
    attempts int    NOT NULL,
    reason   text   NOT NULL,
    dead_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
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
    written_at     timestamptz NOT NULL,
    PRIMARY KEY (consumer, ord)
);
CREATE UNIQUE INDEX inbox_dead_letters_id_idx ON inbox_dead_letters (consumer, id);
CREATE INDEX inbox_dead_letters_lane_idx ON inbox_dead_letters (consumer, lane, ord);

-- Empties the slots that no message may be in any more, by the days that it may remember at most; returns how many were not
-- empty. It decides by the clock and the tables alone, so it is harmless whoever calls it.
CREATE FUNCTION inbox_forget() RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '50ms' AS $$
DECLARE
    today int := floor(extract(epoch FROM clock_timestamp()) / 86400)::int;
    emptied int := 0;
    filled boolean;
    child text;
BEGIN
    FOR there IN 0..9 LOOP
        CONTINUE WHEN EXISTS (SELECT FROM generate_series(today - 7, today + 1) d WHERE d % 10 = there);
        child := format('inbox_messages_%s', there);
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', child) INTO filled;
        IF filled THEN
            EXECUTE format('TRUNCATE %s', child);
            emptied := emptied + 1;
        END IF;
    END LOOP;
    RETURN emptied;
EXCEPTION WHEN lock_not_available THEN
    RETURN 0;
END
$$;
