-- Tenants, their connection strings, and what each service may read of them.

-- Small letters, digits and hyphens, so that a name can be part of a host name, a header, a path.
CREATE TABLE control.tenants (
    name         text PRIMARY KEY CONSTRAINT tenants_name_check
                     CHECK (name ~ '^[a-z0-9]([a-z0-9-]*[a-z0-9])?$' AND pg_catalog.length(name) <= 63),
    display_name text NOT NULL,
    state        text NOT NULL CONSTRAINT tenants_state_check CHECK (state IN
                     ('requested', 'creating', 'active', 'disabled', 'deleting', 'quarantined', 'failed')),
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);

-- The strings as they were given, under the solution's key. `connection` is '' for the default, else
-- the name of a service or of a module's connection. The physical database is what the string led to
-- when it was looked at; empty when it never was.
CREATE TABLE control.tenant_strings (
    tenant            text NOT NULL REFERENCES control.tenants (name) ON DELETE CASCADE,
    connection        text NOT NULL,
    key_id            text NOT NULL,
    sealed            bytea NOT NULL,
    shown             text NOT NULL,
    system_identifier text NOT NULL DEFAULT '',
    database          text NOT NULL DEFAULT '',
    database_oid      oid,
    server_version    integer,
    checked_at        timestamptz,
    shared            boolean NOT NULL DEFAULT false,
    changed_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, connection)
);
CREATE INDEX tenant_strings_physical_idx ON control.tenant_strings (system_identifier, database_oid);

-- What a service may read: each string once more, under that service's own key. `changed_at` is that
-- of the string it was made from.
CREATE TABLE control.service_strings (
    tenant     text NOT NULL,
    service    text NOT NULL,
    connection text NOT NULL,
    key_id     text NOT NULL,
    sealed     bytea NOT NULL,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, service, connection),
    FOREIGN KEY (tenant, connection) REFERENCES control.tenant_strings (tenant, connection) ON DELETE CASCADE
);
CREATE INDEX service_strings_service_idx ON control.service_strings (service);

-- Which role speaks for which service.
CREATE TABLE control.service_roles (
    role    text PRIMARY KEY,
    service text NOT NULL
);

-- Grows with every change that a service can see. It begins with the time and never falls behind it,
-- so that it also grows when this database is made anew or restored.
CREATE TABLE control.directory (
    service text PRIMARY KEY,
    version bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
);

CREATE FUNCTION control.next_version(present bigint) RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ SELECT greatest(present + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) $$;

-- A tenant was made or removed, or its state changed: every service's business. The rows are locked
-- in order, so that two of these wait for each other and do not deadlock.
CREATE FUNCTION control.tenants_changed() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM 1 FROM control.directory ORDER BY service FOR UPDATE;
    UPDATE control.directory SET version = control.next_version(version);
    PERFORM pg_notify('pgfleet_tenants', service) FROM control.directory;
    RETURN NULL;
END
$$;
CREATE TRIGGER tenants_changed AFTER INSERT OR DELETE OR UPDATE OF state ON control.tenants
    FOR EACH STATEMENT EXECUTE FUNCTION control.tenants_changed();

-- A string was given to a service, changed or taken away: that service's business alone.
CREATE FUNCTION control.strings_changed() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM 1 FROM control.directory WHERE service IN (SELECT c.service FROM changed c) ORDER BY service FOR UPDATE;
    UPDATE control.directory SET version = control.next_version(version)
    WHERE service IN (SELECT c.service FROM changed c);
    PERFORM pg_notify('pgfleet_tenants', d.service) FROM control.directory d
    WHERE d.service IN (SELECT c.service FROM changed c);
    RETURN NULL;
END
$$;
CREATE TRIGGER strings_added AFTER INSERT ON control.service_strings
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION control.strings_changed();
CREATE TRIGGER strings_updated AFTER UPDATE ON control.service_strings
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION control.strings_changed();
CREATE TRIGGER strings_removed AFTER DELETE ON control.service_strings
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION control.strings_changed();

-- The service for which the session's role speaks, by itself or as a member of the service's role.
-- `session_user` is who logged in: neither SET ROLE nor a SECURITY DEFINER function changes it. A
-- membership with ADMIN OPTION is that of whoever made the role, and speaks for nobody.
CREATE FUNCTION control.calling_service() RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found text;
BEGIN
    SELECT r.service INTO found FROM control.service_roles r WHERE r.role = session_user::text;
    IF found IS NULL THEN
        SELECT r.service INTO found
        FROM control.service_roles r
        JOIN pg_roles g ON g.rolname = r.role
        JOIN pg_auth_members a ON a.roleid = g.oid AND NOT a.admin_option
        JOIN pg_roles m ON m.oid = a.member
        WHERE m.rolname = session_user
        ORDER BY r.role LIMIT 1;
    END IF;
    IF found IS NULL THEN
        RAISE EXCEPTION 'role % speaks for no service that has data in tenant databases', session_user
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'set tenants = "own" in the service''s section of the manifest, then: pgfleet provision';
    END IF;
    RETURN found;
END
$$;

-- All that services see. Who may enter is granted by `pgfleet provision`.
CREATE SCHEMA pgfleet_directory;
REVOKE ALL ON SCHEMA pgfleet_directory FROM PUBLIC;

CREATE FUNCTION pgfleet_directory.version() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT d.version FROM control.directory d WHERE d.service = control.calling_service() $$;

CREATE FUNCTION pgfleet_directory.tenants()
RETURNS TABLE (tenant text, state text, connection text, sealed bytea, key_id text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    WITH me AS MATERIALIZED (SELECT control.calling_service() AS service)
    SELECT t.name, t.state, s.connection, s.sealed, s.key_id
    FROM me CROSS JOIN control.tenants t
    LEFT JOIN control.service_strings s ON s.tenant = t.name AND s.service = me.service
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA control FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pgfleet_directory FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA control FROM PUBLIC;
