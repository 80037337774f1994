-- Empties the slot that is not written to, if all in it was carried, and has the next messages go there. It decides by what
-- is in the tables alone, so it is harmless whoever calls it; the owner's rights are for TRUNCATE and the cell.
CREATE FUNCTION outbox_rotate() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '50ms' AS $$
DECLARE
    here int2 := coalesce(pg_catalog.pg_sequence_last_value('outbox_slot'::regclass), 0);
    there int2 := 1 - here;
    carried pg_snapshot;
    left_over boolean;
BEGIN
    -- Whoever still writes there holds the table's lock until he ends, so nothing can come after the look.
    EXECUTE format('LOCK TABLE outbox_messages_%s IN ACCESS EXCLUSIVE MODE', there);
    SELECT lo INTO carried FROM outbox_cursor ORDER BY n DESC LIMIT 1;
    EXECUTE format(
        'SELECT EXISTS (SELECT FROM outbox_messages_%1$s WHERE xid >= pg_snapshot_xmax($1)) OR EXISTS '
        '(SELECT FROM outbox_messages_%1$s WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1))))', there)
        INTO left_over USING carried;
    IF left_over THEN
        RETURN false;
    END IF;
    EXECUTE format('TRUNCATE outbox_messages_%s', there);
    PERFORM setval('outbox_slot', there);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$$;

-- Empties the half of the cursor that is not written to, which the newest row is not in.
CREATE FUNCTION outbox_rotate_cursor() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '50ms' AS $$
DECLARE
    here int2;
BEGIN
    SELECT slot INTO here FROM outbox_cursor ORDER BY n DESC LIMIT 1;
    EXECUTE format('TRUNCATE outbox_cursor_%s', 1 - here);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$$;
