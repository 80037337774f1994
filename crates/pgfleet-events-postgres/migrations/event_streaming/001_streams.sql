-- Streams: events that stay, and the order in which everybody reads them.
--
-- `events` is only inserted into. `xid` is the transaction's own id, drawn before anything else in it; `seq` is drawn when
-- the lock of the stream is held, so within a stream it grows with the version. Nobody reads "what has a higher seq": that
-- loses what commits late. `ticks` says what was seen together first, and the order is that of (tick, seq).

CREATE SEQUENCE :"schema".events_seq CACHE 1;

CREATE TABLE :"schema".events (
    seq bigint NOT NULL,
    xid xid8 NOT NULL,
    version bigint NOT NULL,
    at timestamptz NOT NULL,
    id uuid NOT NULL,
    -- The hash of the stream's name, by which streams are shared out among the members of a group.
    part int NOT NULL,
    stream text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    data jsonb NOT NULL,
    correlation_id text COLLATE "C",
    causation_id text,
    traceparent text,
    tracestate text,
    tenant text,
    headers jsonb,
    CONSTRAINT events_pkey PRIMARY KEY (stream, version)
);

CREATE UNIQUE INDEX events_seq_key ON :"schema".events (seq);
-- What was committed late is looked up by who committed it.
CREATE INDEX events_xid_idx ON :"schema".events (xid, seq);
CREATE INDEX events_type_idx ON :"schema".events (type, seq);
CREATE INDEX events_correlation_idx ON :"schema".events (correlation_id, seq) WHERE correlation_id IS NOT NULL;
-- Events lie in about the order of their time: the smallest index does.
CREATE INDEX events_at_idx ON :"schema".events USING brin (at) WITH (pages_per_range = 32, autosummarize = on);

-- What cannot be read from the events of a stream; most streams have no row.
CREATE TABLE :"schema".stream_states (
    stream text COLLATE "C" PRIMARY KEY,
    -- The last version when the stream was emptied: versions go on behind it.
    last_version bigint NOT NULL DEFAULT 0,
    archived boolean NOT NULL DEFAULT false
);

-- One row per life of the numbers of transactions: a database that was dumped and restored elsewhere has begun another.
CREATE TABLE :"schema".cluster (
    epoch int PRIMARY KEY,
    system_identifier bigint NOT NULL,
    timeline text NOT NULL,
    -- Events up to this seq belong to earlier epochs.
    floor bigint NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- A tick holds the events that are visible in `hi` and were not in `lo`, above `floor`; of those, where `cut` is set, only
-- those up to it that the tick before, which has the same two snapshots, did not hold.
CREATE TABLE :"schema".ticks (
    tick bigint PRIMARY KEY,
    epoch int NOT NULL,
    floor bigint NOT NULL,
    lo pg_snapshot NOT NULL,
    hi pg_snapshot NOT NULL,
    -- Every transaction that had an id when `lo`, or `hi`, was taken has a smaller one than this. The upper end of a
    -- snapshot does not say that: it is the latest that had *ended*.
    lo_next xid8 NOT NULL,
    hi_next xid8 NOT NULL,
    -- The highest seq in all ticks up to the one that ended at `lo`, and up to this one.
    lo_seq bigint NOT NULL,
    hi_seq bigint NOT NULL,
    -- What is to be read lies above it, apart from `late`.
    from_seq bigint NOT NULL,
    cut bigint,
    -- Those of its events that were committed late: their seqs are at most `lo_seq`.
    late bigint[] NOT NULL DEFAULT '{}',
    first_position bigint NOT NULL,
    events bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ticks_next_idx ON :"schema".ticks (epoch, hi_next, tick);
CREATE INDEX ticks_at_idx ON :"schema".ticks (at);

INSERT INTO :"schema".cluster (epoch, system_identifier, timeline, floor)
SELECT 1, system_identifier, substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8), 0 FROM pg_control_system();

-- Before everything.
INSERT INTO :"schema".ticks
    (tick, epoch, floor, lo, hi, lo_next, hi_next, lo_seq, hi_seq, from_seq, first_position, events)
VALUES (0, 1, 0, '3:3:', '3:3:', '3', '3', 0, 0, 0, 0, 0);

-- Appends to streams; each stream is there once. Answers per stream with the version it had, or with
-- -1 - version where another one was expected, -2^63 where it is archived, 1 - 2^63 where somebody holds its lock.
-- `a_expected` is -1 for any. With `a_whole` it is all or nothing; without `a_wait` nobody is waited for.
CREATE FUNCTION :"schema".append(
    a_names text[], a_parts int[], a_expected bigint[], a_whole boolean, a_wait boolean,
    a_of int[], a_step int[], a_ids uuid[], a_types text[], a_data jsonb[],
    a_correlations text[], a_causations text[], a_traceparents text[], a_tracestates text[], a_tenants text[],
    a_headers jsonb[]
) RETURNS bigint[] LANGUAGE plpgsql SET search_path TO :"schema", pg_temp
-- The lengths of arrays would have it planned anew for each call.
SET plan_cache_mode TO force_generic_plan AS $$
DECLARE
    -- First of all: of the whole transaction, also within a savepoint.
    v_xid xid8 := pg_current_xact_id();
    v_got boolean[];
    v_bases bigint[];
    v_now timestamptz;
BEGIN
    IF a_wait THEN
        -- In one order everywhere, so that nobody waits in a circle.
        PERFORM pg_advisory_xact_lock(k)
        FROM (SELECT DISTINCT hashtextextended(n, 7) AS k FROM unnest(a_names) AS n ORDER BY 1 OFFSET 0) AS s;
    ELSE
        SELECT array_agg(pg_try_advisory_xact_lock(hashtextextended(n, 7)) ORDER BY o) INTO v_got
        FROM unnest(a_names) WITH ORDINALITY AS u (n, o);
    END IF;
    -- A statement of its own: it sees what was committed before the locks were free.
    SELECT array_agg(
        CASE
            WHEN NOT a_wait AND NOT v_got[o] THEN -9223372036854775807
            WHEN archived THEN -9223372036854775808
            WHEN want < 0 OR want = have THEN have
            -- One that was deleted is as good as none.
            WHEN want = 0 AND have = emptied THEN have
            ELSE -1 - have
        END ORDER BY o) INTO v_bases
    FROM (
        SELECT u.o, u.want, coalesce(k.archived, false) AS archived, k.last_version AS emptied,
            greatest(k.last_version, 0, (SELECT e.version FROM events e WHERE e.stream = u.n ORDER BY e.version DESC LIMIT 1)) AS have
        FROM unnest(a_names, a_expected) WITH ORDINALITY AS u (n, want, o)
        LEFT JOIN LATERAL (SELECT s.last_version, s.archived FROM stream_states s WHERE s.stream = u.n LIMIT 1) AS k ON true
    ) AS x;
    IF a_whole AND (SELECT min(b) FROM unnest(v_bases) AS b) < 0 THEN
        RETURN v_bases;
    END IF;
    v_now := clock_timestamp();
    INSERT INTO events (seq, xid, version, at, id, part, stream, type, data,
        correlation_id, causation_id, traceparent, tracestate, tenant, headers)
    SELECT nextval('events_seq'), v_xid, v_bases[u.o] + u.k, v_now, u.id, a_parts[u.o], a_names[u.o], u.type, u.data,
        u.correlation, u.causation, u.traceparent, u.tracestate, u.tenant, u.headers
    FROM unnest(a_of, a_step, a_ids, a_types, a_data, a_correlations, a_causations, a_traceparents, a_tracestates,
        a_tenants, a_headers) AS u (o, k, id, type, data, correlation, causation, traceparent, tracestate, tenant, headers)
    WHERE v_bases[u.o] >= 0;
    RETURN v_bases;
END
$$;

-- Appends to one stream, waiting for whoever holds its lock; answers as `append` does, at less than half of its cost.
--
-- Most appends are of one event, to a stream that was neither archived nor emptied. They are one statement: each one less
-- takes 2 to 5 of about 35 microseconds, and so would the arrays, unnested, or a plan that is asked for by a setting.
CREATE FUNCTION :"schema".append_one(
    a_name text, a_part int, a_expected bigint, a_ids uuid[], a_types text[], a_data jsonb[],
    a_correlations text[], a_causations text[], a_traceparents text[], a_tracestates text[], a_tenants text[],
    a_headers jsonb[]
) RETURNS bigint LANGUAGE plpgsql SET search_path TO :"schema", pg_temp AS $$
DECLARE
    -- First of all: of the whole transaction, also within a savepoint.
    v_xid xid8 := pg_current_xact_id();
    v_have bigint;
    v_emptied bigint;
    v_archived boolean;
    v_now timestamptz;
    -- Held before the statements below begin: they see what was committed before it was free.
    v_lock text := pg_advisory_xact_lock(hashtextextended(a_name, 7))::text;
BEGIN
    v_now := clock_timestamp();
    IF cardinality(a_ids) = 1 THEN
        INSERT INTO events (seq, xid, version, at, id, part, stream, type, data,
            correlation_id, causation_id, traceparent, tracestate, tenant, headers)
        SELECT nextval('events_seq'), v_xid, h.have + 1, v_now, a_ids[1], a_part, a_name, a_types[1], a_data[1],
            a_correlations[1], a_causations[1], a_traceparents[1], a_tracestates[1], a_tenants[1], a_headers[1]
        FROM (SELECT coalesce(
            (SELECT e.version FROM events e WHERE e.stream = a_name ORDER BY e.version DESC LIMIT 1), 0) AS have OFFSET 0) h
        WHERE (a_expected = -1 OR a_expected = h.have) AND NOT EXISTS (SELECT FROM stream_states s WHERE s.stream = a_name)
        RETURNING version - 1 INTO v_have;
        IF FOUND THEN
            RETURN v_have;
        END IF;
    END IF;
    SELECT s.last_version, s.archived INTO v_emptied, v_archived FROM stream_states s WHERE s.stream = a_name;
    IF v_archived THEN
        RETURN -9223372036854775808;
    END IF;
    SELECT e.version INTO v_have FROM events e WHERE e.stream = a_name ORDER BY e.version DESC LIMIT 1;
    v_have := greatest(v_have, v_emptied, 0);
    -- One that was deleted is as good as none.
    IF a_expected >= 0 AND a_expected <> v_have AND (a_expected <> 0 OR v_have IS DISTINCT FROM v_emptied) THEN
        RETURN -1 - v_have;
    END IF;
    INSERT INTO events (seq, xid, version, at, id, part, stream, type, data,
        correlation_id, causation_id, traceparent, tracestate, tenant, headers)
    SELECT nextval('events_seq'), v_xid, v_have + u.k, v_now, u.id, a_part, a_name, u.type, u.data,
        u.correlation, u.causation, u.traceparent, u.tracestate, u.tenant, u.headers
    FROM unnest(a_ids, a_types, a_data, a_correlations, a_causations, a_traceparents, a_tracestates, a_tenants, a_headers)
        WITH ORDINALITY AS u (id, type, data, correlation, causation, traceparent, tracestate, tenant, headers, k);
    RETURN v_have;
END
$$;

-- Makes the next tick, of at most `a_most` events, and returns it; none when there is nothing new. To be called in a
-- transaction of its own: what it has written before would be a hole.
CREATE FUNCTION :"schema".make_tick(a_most bigint) RETURNS SETOF :"schema".ticks LANGUAGE plpgsql
SET search_path TO :"schema", pg_temp SET enable_seqscan TO off SET enable_bitmapscan TO off SET jit TO off AS $$
DECLARE
    v_last ticks;
    v_new ticks;
    v_cluster cluster;
    v_system bigint;
    v_timeline text;
    v_is_sealing boolean := false;
    v_top bigint := 9223372036854775807;
    v_step bigint := 1;
    v_lowest bigint;
    v_late bigint;
BEGIN
    IF pg_is_in_recovery() THEN
        RETURN;
    END IF;
    IF pg_current_xact_id_if_assigned() IS NOT NULL OR current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a tick is made in a transaction of its own, at read committed';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended(current_schema(), 8));
    SELECT * INTO v_last FROM ticks ORDER BY tick DESC LIMIT 1;
    SELECT * INTO v_cluster FROM cluster ORDER BY epoch DESC LIMIT 1;
    SELECT system_identifier INTO v_system FROM pg_control_system();
    v_timeline := substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8);

    IF v_cluster.system_identifier <> v_system THEN
        -- The numbers of transactions have begun anew. Nobody may be appending who has a seq already.
        PERFORM set_config('lock_timeout', '10s', true);
        LOCK TABLE events IN SHARE MODE;
        v_cluster.floor := greatest(
            v_last.hi_seq, (SELECT max(seq) FROM events), coalesce(pg_sequence_last_value('events_seq'), 0));
        PERFORM setval('events_seq', v_cluster.floor + 1, false);
        INSERT INTO cluster (epoch, system_identifier, timeline, floor)
        VALUES (v_cluster.epoch + 1, v_system, v_timeline, v_cluster.floor) RETURNING * INTO v_cluster;
    END IF;

    v_new := v_last;
    IF v_last.cut IS NOT NULL THEN
        -- The rest of the same window.
        v_new.from_seq := v_last.cut;
        v_is_sealing := v_last.epoch < v_cluster.epoch;
    ELSIF v_last.epoch < v_cluster.epoch AND pg_snapshot_xmin(v_last.hi) < '9223372036854775807' THEN
        -- What no tick had taken when the database was dumped is taken whole.
        v_is_sealing := true;
        v_new.lo := v_last.hi;
        v_new.lo_next := v_last.hi_next;
        v_new.lo_seq := v_last.hi_seq;
        v_new.from_seq := v_last.floor;
        v_new.hi := '9223372036854775807:9223372036854775807:';
        v_new.hi_next := '9223372036854775807';
    ELSIF v_last.epoch < v_cluster.epoch THEN
        v_new.epoch := v_cluster.epoch;
        v_new.floor := v_cluster.floor;
        v_new.lo := '3:3:';
        v_new.lo_next := '3';
        v_new.lo_seq := v_cluster.floor;
        v_new.from_seq := v_cluster.floor;
        v_new.hi := pg_current_snapshot();
    ELSE
        v_new.lo := v_last.hi;
        v_new.lo_next := v_last.hi_next;
        v_new.lo_seq := v_last.hi_seq;
        v_new.from_seq := v_last.floor;
        v_new.hi := pg_current_snapshot();
    END IF;
    IF v_is_sealing THEN
        v_top := v_cluster.floor;
    END IF;

    -- Late ones: of transactions that had an id when `lo` was taken and were not done, which are those that `lo` names and
    -- those from its upper end on. All others have drawn their seqs after it.
    SELECT count(*), min(seq), max(seq), coalesce(array_agg(seq) FILTER (WHERE seq <= v_new.lo_seq), '{}')
    INTO v_new.events, v_lowest, v_new.cut, v_new.late
    FROM (
        SELECT w.seq FROM (
            SELECT e.seq FROM events e
            WHERE e.xid = ANY (ARRAY(SELECT pg_snapshot_xip(v_new.lo))) AND e.seq > v_new.from_seq AND e.seq <= v_new.lo_seq
              AND pg_visible_in_snapshot(e.xid, v_new.hi) AND NOT pg_visible_in_snapshot(e.xid, v_new.lo)
            UNION ALL
            SELECT e.seq FROM events e
            WHERE e.xid >= pg_snapshot_xmax(v_new.lo) AND e.xid < v_new.lo_next AND e.seq > v_new.from_seq
              AND e.seq <= v_new.lo_seq
              AND pg_visible_in_snapshot(e.xid, v_new.hi) AND NOT pg_visible_in_snapshot(e.xid, v_new.lo)
            UNION ALL
            (SELECT e.seq FROM events e
            -- Above all that was seen, so `lo` need not be asked; in a sealing tick it must not be, which takes what was
            -- appended with the new cluster's numbers, too.
            WHERE e.seq > greatest(v_new.lo_seq, v_new.from_seq) AND e.seq <= v_top
              AND pg_visible_in_snapshot(e.xid, v_new.hi)
            ORDER BY e.seq LIMIT a_most)
        ) AS w ORDER BY w.seq LIMIT a_most
    ) AS x;
    IF v_new.events = 0 AND v_last.cut IS NULL AND NOT v_is_sealing THEN
        RETURN;
    END IF;
    v_new.hi_seq := greatest(v_last.hi_seq, v_new.cut);
    IF v_new.events < a_most THEN
        v_new.cut := NULL;
    END IF;
    -- From where it is read on: above what had been seen, unless so many are late that they are not listed.
    v_late := cardinality(v_new.late);
    IF v_late > 1000 THEN
        v_new.late := '{}';
        v_new.from_seq := greatest(v_new.from_seq, v_lowest - 1);
    ELSE
        v_new.from_seq := greatest(v_new.from_seq, v_new.lo_seq);
    END IF;
    IF v_cluster.timeline <> v_timeline THEN
        -- A replica took over, or the database was restored to a point in time. Ticks that it had not heard of may have
        -- been given out: their numbers are not given twice.
        v_step := 1000000;
        UPDATE cluster SET timeline = v_timeline WHERE epoch = v_cluster.epoch;
    END IF;
    IF v_last.cut IS NULL AND NOT v_is_sealing THEN
        -- After `hi`: what had an id then has a smaller one.
        v_new.hi_next := pg_current_xact_id();
    END IF;
    v_new.tick := v_last.tick + v_step;
    v_new.first_position := v_last.first_position + v_last.events;
    v_new.at := clock_timestamp();
    INSERT INTO ticks SELECT v_new.*;
    IF v_new.events > 0 THEN
        -- Of the tick, not of those who append: notifying takes a lock over the commit.
        PERFORM pg_notify(left(current_schema(), 50) || '_ticks', v_new.tick::text);
    END IF;
    RETURN NEXT v_new;
END
$$;

-- Returns up to `a_rows` ticks behind one; makes one where there is none.
CREATE FUNCTION :"schema".next_ticks(a_after bigint, a_most bigint, a_rows bigint) RETURNS SETOF :"schema".ticks
LANGUAGE plpgsql SET search_path TO :"schema", pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM ticks WHERE tick > a_after ORDER BY tick LIMIT a_rows;
    IF FOUND OR pg_is_in_recovery() THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended(current_schema(), 8));
    -- Who held the lock has made one.
    RETURN QUERY SELECT * FROM ticks WHERE tick > a_after ORDER BY tick LIMIT a_rows;
    IF FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT * FROM make_tick(a_most);
END
$$;

-- Removes the events of a stream before a version and returns how many; -1 - version where it has another one than
-- `a_expected` (-1 for any). What is left goes on with its versions.
CREATE FUNCTION :"schema".remove_events(a_stream text, a_before bigint, a_expected bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path TO :"schema", pg_temp AS $$
DECLARE
    v_last bigint;
    v_removed bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(a_stream, 7));
    SELECT greatest(
        (SELECT s.last_version FROM stream_states s WHERE s.stream = a_stream), 0,
        (SELECT e.version FROM events e WHERE e.stream = a_stream ORDER BY e.version DESC LIMIT 1)) INTO v_last;
    IF a_expected >= 0 AND a_expected <> v_last
       AND NOT (a_expected = 0 AND NOT EXISTS (SELECT FROM events WHERE stream = a_stream)) THEN
        RETURN -1 - v_last;
    END IF;
    DELETE FROM events WHERE stream = a_stream AND version < a_before;
    GET DIAGNOSTICS v_removed = ROW_COUNT;
    IF a_before > v_last AND v_last > 0 THEN
        INSERT INTO stream_states (stream, last_version) VALUES (a_stream, v_last)
        ON CONFLICT (stream) DO UPDATE SET last_version = excluded.last_version, archived = false;
    END IF;
    RETURN v_removed;
END
$$;

-- Closes a stream for appends, or opens it again; says whether there is one.
CREATE FUNCTION :"schema".archive_stream(a_stream text, a_archived boolean) RETURNS boolean
LANGUAGE plpgsql SET search_path TO :"schema", pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(a_stream, 7));
    IF NOT EXISTS (SELECT FROM events WHERE stream = a_stream) THEN
        RETURN false;
    END IF;
    INSERT INTO stream_states (stream, archived) VALUES (a_stream, a_archived)
    ON CONFLICT (stream) DO UPDATE SET archived = excluded.archived;
    RETURN true;
END
$$;

-- Who may read which part for a group. Changed when a lease is taken or renewed, a few times in a minute.
CREATE TABLE :"schema".consumer_groups (
    group_name text COLLATE "C" NOT NULL,
    part int NOT NULL,
    parts int NOT NULL,
    member text COLLATE "C",
    -- How often it was given to somebody: the fence.
    epoch bigint NOT NULL DEFAULT 0,
    lease_until timestamptz NOT NULL DEFAULT '-infinity',
    CONSTRAINT consumer_groups_pkey PRIMARY KEY (group_name, part)
) WITH (fillfactor = 50);

CREATE TABLE :"schema".consumer_members (
    group_name text COLLATE "C" NOT NULL,
    member text COLLATE "C" NOT NULL,
    alive_until timestamptz NOT NULL,
    CONSTRAINT consumer_members_pkey PRIMARY KEY (group_name, member)
) WITH (fillfactor = 50);

-- How far a part was read: the newest row counts. A row that is updated with each batch would leave a dead version each
-- time, through all of which the next update has to go while somebody's snapshot keeps them; rows that are only added are
-- found from the newest one on, however many old ones there are.
CREATE TABLE :"schema".consumer_offsets (
    group_name text COLLATE "C" NOT NULL,
    part int NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    tick bigint NOT NULL,
    seq bigint NOT NULL,
    -- None for where the group was begun or set to.
    committed_at timestamptz,
    CONSTRAINT consumer_offsets_pkey PRIMARY KEY (group_name, part, id)
);

-- Takes leases on a group's parts, as many as are a member's share, and renews those that he has. One row of part -1 says
-- how many parts the group has where that is another number.
CREATE FUNCTION :"schema".lease_parts(
    a_group text, a_member text, a_parts int, a_tick bigint, a_seq bigint, a_time interval
) RETURNS TABLE (part int, parts int, epoch bigint, tick bigint, seq bigint, lease_until timestamptz)
LANGUAGE plpgsql SET search_path TO :"schema", pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz;
    v_parts int;
    v_share int;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(a_group, 9));
    v_now := clock_timestamp();
    SELECT max(g.parts) INTO v_parts FROM consumer_groups g WHERE g.group_name = a_group;
    IF v_parts IS NULL THEN
        INSERT INTO consumer_groups (group_name, part, parts) SELECT a_group, p, a_parts FROM generate_series(0, a_parts - 1) p;
        INSERT INTO consumer_offsets (group_name, part, tick, seq)
        SELECT a_group, p, a_tick, a_seq FROM generate_series(0, a_parts - 1) p;
    ELSIF v_parts <> a_parts THEN
        RETURN QUERY SELECT -1, v_parts, 0::bigint, 0::bigint, 0::bigint, v_now;
        RETURN;
    END IF;
    INSERT INTO consumer_members (group_name, member, alive_until) VALUES (a_group, a_member, v_now + a_time)
    ON CONFLICT (group_name, member) DO UPDATE SET alive_until = excluded.alive_until;
    DELETE FROM consumer_members m WHERE m.group_name = a_group AND m.alive_until <= v_now;
    -- The rest of the division goes to those whose names come first.
    SELECT a_parts / c + (CASE WHEN r <= a_parts % c THEN 1 ELSE 0 END) INTO v_share
    FROM (SELECT m.member, row_number() OVER (ORDER BY m.member) r, count(*) OVER () c
          FROM consumer_members m WHERE m.group_name = a_group) x
    WHERE x.member = a_member;
    UPDATE consumer_groups g SET member = NULL, lease_until = v_now
    WHERE g.group_name = a_group AND g.part IN (
        SELECT o.part FROM consumer_groups o WHERE o.group_name = a_group AND o.member = a_member
        ORDER BY o.part OFFSET v_share);
    UPDATE consumer_groups g SET member = a_member, lease_until = v_now + a_time,
        epoch = g.epoch + (CASE WHEN g.member = a_member THEN 0 ELSE 1 END)
    WHERE g.group_name = a_group AND g.part IN (
        SELECT o.part FROM consumer_groups o
        WHERE o.group_name = a_group AND (o.member = a_member OR o.member IS NULL OR o.lease_until <= v_now)
        ORDER BY o.member = a_member DESC NULLS LAST, o.part LIMIT v_share);
    DELETE FROM consumer_offsets o WHERE o.group_name = a_group AND EXISTS (
        SELECT FROM consumer_offsets n WHERE n.group_name = o.group_name AND n.part = o.part AND n.id > o.id);
    RETURN QUERY
    SELECT g.part, g.parts, g.epoch, o.tick, o.seq, g.lease_until FROM consumer_groups g, LATERAL (
        SELECT o.tick, o.seq FROM consumer_offsets o WHERE o.group_name = g.group_name AND o.part = g.part
        ORDER BY o.id DESC LIMIT 1) o
    WHERE g.group_name = a_group AND g.member = a_member ORDER BY g.part;
END
$$;

-- Sets all parts of a group to a position and ends all leases; says whether there is such a group.
CREATE FUNCTION :"schema".reset_group(a_group text, a_tick bigint, a_seq bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path TO :"schema", pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(a_group, 9));
    UPDATE consumer_groups SET member = NULL, lease_until = clock_timestamp(), epoch = epoch + 1 WHERE group_name = a_group;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM consumer_members WHERE group_name = a_group;
    INSERT INTO consumer_offsets (group_name, part, tick, seq)
    SELECT group_name, part, a_tick, a_seq FROM consumer_groups WHERE group_name = a_group;
    RETURN true;
END
$$;

-- How many events lie before a position in the order of all streams.
CREATE FUNCTION :"schema".dense_position(a_tick bigint, a_seq bigint) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path TO :"schema", pg_temp AS $$
DECLARE
    v_tick ticks;
BEGIN
    SELECT * INTO v_tick FROM ticks WHERE tick <= a_tick ORDER BY tick DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN (SELECT first_position FROM ticks ORDER BY tick LIMIT 1);
    END IF;
    IF v_tick.tick < a_tick OR a_seq >= least(v_tick.cut, v_tick.hi_seq) THEN
        RETURN v_tick.first_position + v_tick.events;
    END IF;
    RETURN v_tick.first_position + (SELECT count(*) FROM unnest(v_tick.late) AS s WHERE s <= a_seq) + (
        SELECT count(*) FROM events e
        WHERE e.seq > v_tick.from_seq AND e.seq <= a_seq AND pg_visible_in_snapshot(e.xid, v_tick.hi)
          AND (e.seq > v_tick.lo_seq OR NOT pg_visible_in_snapshot(e.xid, v_tick.lo)));
END
$$;
