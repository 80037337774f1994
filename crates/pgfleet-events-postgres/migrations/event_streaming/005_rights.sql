-- Emptying a table whole and moving a sequence on are the owner's rights. Whoever may use the schema may have these done:
-- what they do is decided by the clock and by what is in the tables, not by who calls.
ALTER FUNCTION :"schema".make_tick(bigint) SECURITY DEFINER;
ALTER FUNCTION :"schema".queue_rotate_events(bigint) SECURITY DEFINER;
ALTER FUNCTION :"schema".queue_rotate_claims(bigint) SECURITY DEFINER;
ALTER FUNCTION :"schema".queue_seal() SECURITY DEFINER;
