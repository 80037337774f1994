-- Makes a tick for readers elsewhere, of which its making tells them; says whether anybody listens.
--
-- Whoever listens holds a lock, shared with the others, for as long as his connection is there. Whoever can have it alone
-- is alone. Two who ask at the same time may each believe that somebody listens: then a tick is made that nobody waits for.
CREATE FUNCTION :"schema".tick_for_others(a_most bigint) RETURNS boolean LANGUAGE plpgsql
SET search_path TO :"schema", pg_temp SET lock_timeout TO '2s' AS $$
BEGIN
    IF pg_is_in_recovery() OR pg_try_advisory_xact_lock(hashtextextended(current_schema(), -6)) THEN
        RETURN false;
    END IF;
    PERFORM make_tick(a_most);
    RETURN true;
END
$$;
