-- What is kept in order by one keeper at a time: retention of streams and queues, and the ticks of long ago.

-- Who keeps the tables in order. One row, changed once in a round: a lease by the clock of the database, with how often it
-- was given to somebody else.
CREATE TABLE :"schema".keepers (
    name text COLLATE "C" PRIMARY KEY,
    holder text COLLATE "C" NOT NULL DEFAULT '',
    epoch bigint NOT NULL DEFAULT 0,
    until timestamptz NOT NULL DEFAULT '-infinity',
    -- Ticks up to this one were looked at by `merge_ticks`.
    merged_upto bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO :"schema".keepers (name) VALUES ('keeper');

-- Takes the lease or renews it; returns its epoch, 0 where somebody else has it. Who has not got it writes nothing.
CREATE FUNCTION :"schema".keeper_lead(a_holder text, a_micros bigint) RETURNS bigint LANGUAGE plpgsql
SET search_path TO :"schema", pg_temp SET lock_timeout TO '2s' AS $$
DECLARE
    v_epoch bigint;
BEGIN
    IF pg_is_in_recovery() OR NOT EXISTS (
        SELECT FROM keepers k WHERE k.name = 'keeper' AND (k.holder = a_holder OR k.until <= clock_timestamp()))
    THEN
        RETURN 0;
    END IF;
    -- Asked again of the row as it is when its lock is free.
    UPDATE keepers k SET holder = a_holder, until = clock_timestamp() + a_micros * interval '1 microsecond',
        epoch = k.epoch + (CASE WHEN k.holder = a_holder THEN 0 ELSE 1 END)
    WHERE k.name = 'keeper' AND (k.holder = a_holder OR k.until <= clock_timestamp())
    RETURNING epoch INTO v_epoch;
    RETURN coalesce(v_epoch, 0);
END
$$;

-- Ends the lease at once.
CREATE FUNCTION :"schema".keeper_resign(a_holder text) RETURNS void LANGUAGE sql
SET search_path TO :"schema", pg_temp SET lock_timeout TO '2s' AS $$
    UPDATE keepers SET until = '-infinity', holder = '' WHERE name = 'keeper' AND holder = a_holder
$$;

-- As the function with four arguments, at most so many events at once: until there are fewer than that there may be more.
CREATE FUNCTION :"schema".retain_events(a_stream text, a_age interval, a_count bigint, a_bytes bigint, a_most bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path TO :"schema", pg_temp SET lock_timeout TO '2s' AS $$
DECLARE
    v_first bigint;
    v_last bigint;
    v_before bigint;
    v_removed bigint;
BEGIN
    SELECT e.version INTO v_first FROM events e WHERE e.stream = a_stream ORDER BY e.version LIMIT 1;
    SELECT e.version INTO v_last FROM events e WHERE e.stream = a_stream ORDER BY e.version DESC LIMIT 1;
    IF v_last IS NULL THEN
        RETURN 0;
    END IF;
    v_before := greatest(
        v_last + 1 - a_count,
        -- The first that is young enough; without one all go.
        CASE WHEN a_age IS NOT NULL THEN coalesce((
            SELECT e.version FROM events e WHERE e.stream = a_stream AND e.at >= clock_timestamp() - a_age
            ORDER BY e.version LIMIT 1), v_last + 1) END,
        CASE WHEN a_bytes IS NOT NULL THEN 1 + (
            SELECT w.version FROM (
                SELECT e.version, sum(octet_length(e.data::text)) OVER (ORDER BY e.version DESC) AS bytes
                FROM events e WHERE e.stream = a_stream) AS w
            WHERE w.bytes > a_bytes ORDER BY w.version DESC LIMIT 1) END);
    -- Nothing goes beyond a limit.
    IF v_before IS NULL OR v_before <= v_first THEN
        RETURN 0;
    END IF;
    -- Versions have no gaps: what is removed is removed from the beginning.
    v_before := least(v_before, v_first + greatest(a_most, 1));
    -- Versions go on behind what is removed, should it be all. Only then somebody who appends has to wait.
    IF v_before > v_last THEN
        PERFORM pg_advisory_xact_lock(hashtextextended(a_stream, 7));
        INSERT INTO stream_states (stream, last_version) VALUES (a_stream, v_last)
        ON CONFLICT (stream) DO UPDATE SET last_version = greatest(stream_states.last_version, excluded.last_version);
    END IF;
    DELETE FROM events e WHERE e.stream = a_stream AND e.version < v_before;
    GET DIAGNOSTICS v_removed = ROW_COUNT;
    RETURN v_removed;
END
$$;

-- Removes of a queue messages that nobody took and that go beyond a limit, the oldest first, at most so many at once.
-- Returns how many. What waits behind a message of its key is not counted and stays, and so does what is in a lane that
-- somebody takes messages from just now.
CREATE FUNCTION :"schema".queue_retain(a_name text, a_age interval, a_count bigint, a_bytes bigint, a_most bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path TO :"schema", pg_temp SET lock_timeout TO '2s' SET jit TO off AS $$
DECLARE
    v_queue int := (SELECT queue_id FROM queues WHERE name = a_name);
    v_base bigint := hashtextextended(current_schema(), v_queue);
    v_lanes int[];
    v_seqs bigint[];
    v_delayed bigint[];
    v_count bigint;
    v_all bigint := 0;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'messages are removed at read committed';
    END IF;
    -- Not while what is in one table is carried over to the other one: it would be there again.
    IF v_queue IS NULL OR NOT pg_try_advisory_xact_lock(hashtextextended(current_schema(), -2)) THEN
        RETURN 0;
    END IF;
    WITH w AS MATERIALIZED (
        SELECT r.lane, r.seq, r.enqueued_at, false AS delayed, CASE WHEN a_bytes IS NOT NULL THEN octet_length(r.data::text) END AS bytes
        FROM queue_ready r WHERE r.queue_id = v_queue
        UNION ALL
        SELECT d.lane, d.seq, d.enqueued_at, true, CASE WHEN a_bytes IS NOT NULL THEN octet_length(d.data::text) END
        FROM queue_delayed d WHERE d.queue_id = v_queue
    ), o AS (
        SELECT x.*, row_number() OVER s AS n, sum(x.bytes) OVER s - x.bytes AS before
        FROM (SELECT * FROM w ORDER BY w.enqueued_at, w.seq LIMIT greatest(a_most, 1)) AS x
        WINDOW s AS (ORDER BY x.enqueued_at, x.seq ROWS UNBOUNDED PRECEDING)
    )
    SELECT coalesce(array_agg(DISTINCT o.lane) FILTER (WHERE NOT o.delayed), '{}'),
        coalesce(array_agg(o.seq) FILTER (WHERE NOT o.delayed), '{}'), coalesce(array_agg(o.seq) FILTER (WHERE o.delayed), '{}')
    INTO v_lanes, v_seqs, v_delayed
    FROM o, (SELECT count(*) AS messages, sum(w.bytes) AS bytes FROM w) AS t
    WHERE o.enqueued_at < clock_timestamp() - a_age OR t.messages - o.n >= a_count OR t.bytes - o.before > a_bytes;
    IF v_seqs <> '{}' THEN
        -- Whoever has the lock of a lane takes from it; until this is committed nobody does.
        SELECT coalesce(array_agg(l), '{}') INTO v_lanes FROM unnest(v_lanes) AS l WHERE pg_try_advisory_xact_lock(v_base + l);
        -- A statement of its own: it sees what was taken before the locks were free.
        v_seqs := ARRAY(SELECT r.seq FROM queue_ready r WHERE r.queue_id = v_queue AND r.lane = ANY (v_lanes) AND r.seq = ANY (v_seqs));
        PERFORM queue_unpack(v_queue, v_lanes, v_seqs);
        -- What is a pack still is removed as a whole: all of it is among them.
        DELETE FROM queue_events e WHERE e.queue_id = v_queue AND e.lane = ANY (v_lanes) AND e.seq = ANY (v_seqs);
        v_all := cardinality(v_seqs);
    END IF;
    IF v_delayed <> '{}' THEN
        DELETE FROM queue_delayed d WHERE d.queue_id = v_queue AND d.seq = ANY (v_delayed);
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_all := v_all + v_count;
    END IF;
    RETURN v_all;
END
$$;

-- Ticks that follow each other in one row. What is late is in no but the first of them, so the events of each are those
-- between the highest seq of the one before and its own: nothing else has to be kept to know which event is in which tick,
-- and positions stay what they are. `tick` is the number of the last one; `lo`, `lo_next`, `lo_seq`, `from_seq`, `late` and
-- `first_position` are those of the first, `hi`, `hi_next`, `hi_seq` and `at` those of the last, `events` is the sum.
ALTER TABLE :"schema".ticks
    ADD COLUMN run_length int NOT NULL DEFAULT 1,
    -- Of each of them, in order; none where it is one.
    ADD COLUMN run_ticks bigint[],
    ADD COLUMN run_tops bigint[],
    ADD COLUMN run_events bigint[];

-- Puts ticks that follow each other into one row, up to `a_length` of them; looks at `a_rows` rows at most, and at none
-- that is younger than `a_age`. Returns how many rows there are less, and whether there may be more to do.
--
-- Two ticks go together only where the second begins where the first ends (the same snapshot, the same highest seq), both
-- are whole, of one life of the numbers of transactions, and nothing in the second is late. Then of what is visible at the
-- end of the second, what is above the first one's highest seq was not visible before, and what is not above it was: the
-- bound by seq says the same as the snapshot between them, for whoever reads now or later. The newest tick is left alone:
-- the next one is made of it.
CREATE FUNCTION :"schema".merge_ticks(a_age interval, a_length int, a_rows int, OUT merged bigint, OUT more boolean)
LANGUAGE plpgsql SET search_path TO :"schema", pg_temp SET lock_timeout TO '2s' SET jit TO off AS $$
DECLARE
    v_upto bigint;
    v_newest bigint := (SELECT max(tick) FROM ticks);
    v_first ticks;
    v_last ticks;
    r ticks;
    v_length int := 0;
    v_ticks bigint[];
    v_tops bigint[];
    v_events bigint[];
    v_seen int := 0;
    v_ended boolean;
    v_count bigint;
BEGIN
    merged := 0;
    more := false;
    IF pg_is_in_recovery() OR NOT pg_try_advisory_xact_lock(hashtextextended(current_schema(), -4)) THEN
        RETURN;
    END IF;
    SELECT merged_upto INTO v_upto FROM keepers WHERE name = 'keeper';
    FOR r IN SELECT * FROM ticks WHERE tick > v_upto AND tick < v_newest ORDER BY tick LIMIT a_rows LOOP
        EXIT WHEN r.at > clock_timestamp() - a_age;
        v_seen := v_seen + 1;
        IF v_length > 0 AND v_length < a_length AND r.run_length = 1 AND r.cut IS NULL AND r.late = '{}' AND r.epoch = v_last.epoch
            AND r.floor = v_last.floor AND r.lo::text = v_last.hi::text AND r.lo_next = v_last.hi_next
            AND r.lo_seq = v_last.hi_seq AND r.from_seq = r.lo_seq AND pg_snapshot_xmin(r.hi) < '9223372036854775807'
        THEN
            v_ended := false;
        ELSE
            v_ended := true;
            IF v_length > 1 THEN
                DELETE FROM ticks WHERE tick = ANY (v_ticks);
                GET DIAGNOSTICS v_count = ROW_COUNT;
                IF v_count <> v_length THEN
                    RAISE EXCEPTION 'ticks have changed meanwhile' USING ERRCODE = 'serialization_failure';
                END IF;
                v_first.tick := v_last.tick; v_first.hi := v_last.hi; v_first.hi_next := v_last.hi_next;
                v_first.hi_seq := v_last.hi_seq; v_first.at := v_last.at;
                v_first.events := (SELECT sum(x) FROM unnest(v_events) AS x);
                v_first.run_length := v_length; v_first.run_ticks := v_ticks; v_first.run_tops := v_tops; v_first.run_events := v_events;
                INSERT INTO ticks SELECT v_first.*;
                merged := merged + v_length - 1;
            END IF;
            IF v_length > 0 THEN
                v_upto := v_last.tick;
            END IF;
            v_length := 0;
        END IF;
        IF v_ended AND (r.run_length > 1 OR r.cut IS NOT NULL OR r.from_seq < r.lo_seq OR r.tick = 0
            OR pg_snapshot_xmin(r.hi) >= '9223372036854775807')
        THEN
            v_upto := r.tick;
            CONTINUE;
        END IF;
        IF v_ended THEN
            v_first := r; v_ticks := '{}'; v_tops := '{}'; v_events := '{}';
        END IF;
        v_last := r;
        v_length := v_length + 1;
        v_ticks := v_ticks || r.tick; v_tops := v_tops || r.hi_seq; v_events := v_events || r.events;
    END LOOP;
    -- A run that may go on is looked at again, from its first tick.
    UPDATE keepers SET merged_upto = v_upto WHERE name = 'keeper' AND merged_upto <> v_upto;
    more := v_seen >= a_rows AND FOUND;
END
$$;

-- Removes rows of ticks all of whose events were removed; looks at `a_rows` of them behind `a_after`. Returns how many, and
-- up to where it has looked; none when that was all.
--
-- What was not committed when a tick was made never comes into it, so what is empty stays so. A position in it lies before
-- the next tick, as it did. Those before everything, the newest, and those that seal an epoch stay.
CREATE FUNCTION :"schema".drop_ticks(a_after bigint, a_rows int, OUT dropped bigint, OUT upto bigint)
LANGUAGE plpgsql SET search_path TO :"schema", pg_temp SET lock_timeout TO '2s' SET jit TO off SET enable_seqscan TO off
SET enable_bitmapscan TO off AS $$
DECLARE
    v_newest bigint := (SELECT max(tick) FROM ticks);
    v_rows bigint;
BEGIN
    dropped := 0;
    IF pg_is_in_recovery() OR NOT pg_try_advisory_xact_lock(hashtextextended(current_schema(), -4)) THEN
        RETURN;
    END IF;
    SELECT max(x.tick), count(*) INTO upto, v_rows FROM (
        SELECT t.tick FROM ticks t WHERE t.tick > a_after AND t.tick < v_newest ORDER BY t.tick LIMIT a_rows) AS x;
    DELETE FROM ticks t WHERE t.tick > greatest(a_after, 0) AND t.tick <= upto AND t.from_seq >= t.lo_seq
        AND pg_snapshot_xmin(t.hi) < '9223372036854775807'
        AND NOT EXISTS (SELECT FROM events e WHERE e.seq = ANY (t.late))
        -- As it is read.
        AND NOT EXISTS (SELECT FROM events e WHERE e.seq > t.from_seq AND e.seq <= least(t.cut, t.hi_seq)
            AND pg_visible_in_snapshot(e.xid, t.hi));
    GET DIAGNOSTICS dropped = ROW_COUNT;
    IF v_rows < a_rows THEN
        upto := NULL;
    END IF;
END
$$;

-- Ticks behind one, as rows: as many as hold `a_rows` of them, and one row at least.
CREATE FUNCTION :"schema".ticks_behind(a_after bigint, a_rows bigint) RETURNS SETOF :"schema".ticks
LANGUAGE plpgsql STABLE SET search_path TO :"schema", pg_temp AS $$
BEGIN
    RETURN QUERY SELECT t.* FROM ticks t WHERE t.tick > a_after AND t.tick <= (
        SELECT max(b.tick) FROM (
            SELECT a.tick, sum(a.run_length) OVER (ORDER BY a.tick) - a.run_length AS before FROM (
                SELECT x.tick, x.run_length FROM ticks x WHERE x.tick > a_after ORDER BY x.tick LIMIT a_rows) AS a) AS b
        WHERE b.before < a_rows)
    ORDER BY t.tick;
END
$$;

CREATE OR REPLACE FUNCTION :"schema".next_ticks(a_after bigint, a_most bigint, a_rows bigint) RETURNS SETOF :"schema".ticks
LANGUAGE plpgsql SET search_path TO :"schema", pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM ticks_behind(a_after, a_rows);
    IF FOUND OR pg_is_in_recovery() THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended(current_schema(), 8));
    -- Who held the lock has made one.
    RETURN QUERY SELECT * FROM ticks_behind(a_after, a_rows);
    IF FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT * FROM make_tick(a_most);
END
$$;

-- How many events lie before a position in the order of all streams.
CREATE OR REPLACE FUNCTION :"schema".dense_position(a_tick bigint, a_seq bigint) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path TO :"schema", pg_temp AS $$
DECLARE
    v_tick ticks;
    v_place int;
    v_from bigint;
    v_late bigint := 0;
    v_before bigint;
BEGIN
    SELECT * INTO v_tick FROM ticks WHERE tick >= a_tick ORDER BY tick LIMIT 1;
    IF NOT FOUND THEN
        RETURN (SELECT first_position + events FROM ticks ORDER BY tick DESC LIMIT 1);
    END IF;
    IF v_tick.run_ticks IS NULL THEN
        v_tick.run_ticks := ARRAY[v_tick.tick];
        v_tick.run_tops := ARRAY[least(v_tick.cut, v_tick.hi_seq)];
        v_tick.run_events := ARRAY[v_tick.events];
    END IF;
    v_before := v_tick.first_position + coalesce((
        SELECT sum(u.events) FROM unnest(v_tick.run_ticks, v_tick.run_events) AS u (tick, events) WHERE u.tick < a_tick), 0);
    v_place := array_position(v_tick.run_ticks, a_tick);
    -- Its events were removed, and it with them: what follows begins behind it.
    IF v_place IS NULL THEN
        RETURN v_before;
    END IF;
    IF a_seq >= v_tick.run_tops[v_place] THEN
        RETURN v_before + v_tick.run_events[v_place];
    END IF;
    -- Less what is left of it behind the position: what was removed before it has been read as well.
    IF v_place > 1 THEN
        v_from := v_tick.run_tops[v_place - 1];
    ELSE
        v_from := v_tick.from_seq;
        v_late := (SELECT count(*) FROM events e WHERE e.seq = ANY (v_tick.late) AND e.seq > a_seq);
    END IF;
    RETURN v_before + v_tick.run_events[v_place] - v_late - (
        SELECT count(*) FROM events e
        WHERE e.seq > greatest(v_from, a_seq) AND e.seq <= v_tick.run_tops[v_place] AND pg_visible_in_snapshot(e.xid, v_tick.hi)
          AND (e.seq > v_tick.lo_seq OR NOT pg_visible_in_snapshot(e.xid, v_tick.lo)));
END
$$;

-- What these do is decided by what is in the tables, as of those in 005.
ALTER FUNCTION :"schema".merge_ticks(interval, int, int) SECURITY DEFINER;
ALTER FUNCTION :"schema".drop_ticks(bigint, int) SECURITY DEFINER;
