-- Moving a sequence on is the owner's right. Whoever may use the schema may have it done: what it does is decided by what is in
-- the tables, not by who calls.
ALTER FUNCTION :"schema".make_tick(bigint) SECURITY DEFINER;
