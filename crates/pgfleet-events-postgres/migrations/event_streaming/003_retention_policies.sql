-- What is removed by itself.
CREATE TABLE :"schema".retention_policies (
    name text COLLATE "C" PRIMARY KEY CHECK (name <> ''),
    -- A stream's name, or the beginning of names with a * behind it.
    streams text COLLATE "C" NOT NULL CHECK (streams <> ''),
    max_age interval,
    max_count bigint CHECK (max_count >= 0),
    max_bytes bigint CHECK (max_bytes >= 0),
    enabled boolean NOT NULL DEFAULT true
);

-- Removes of a stream what goes beyond a limit, the oldest first; returns how many events.
CREATE FUNCTION :"schema".retain_events(a_stream text, a_age interval, a_count bigint, a_bytes bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path TO :"schema", pg_temp AS $$
DECLARE
    v_last bigint;
    v_before bigint;
    v_removed bigint;
BEGIN
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
    IF v_before IS NULL OR NOT EXISTS (SELECT FROM events e WHERE e.stream = a_stream AND e.version < v_before) THEN
        RETURN 0;
    END IF;
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
