-- Two strings lead to one database when its oid is the same or its name is: which those are is found by either.
CREATE INDEX tenant_strings_database_idx ON control.tenant_strings (system_identifier, database);
