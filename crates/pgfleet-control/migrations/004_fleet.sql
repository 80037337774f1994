-- Databases that pgfleet makes for tenants, templates, where every target stands, rollouts, and the
-- messages that have tenants follow their services.

-- The solution's own server on which pgfleet made the database that a string leads to; '' for a string
-- that somebody gave. What services read of such a string is written out for each of them.
ALTER TABLE control.tenant_strings ADD COLUMN server text NOT NULL DEFAULT '';
ALTER TABLE control.service_strings ADD COLUMN fingerprint text NOT NULL DEFAULT '';

-- Why making or removing it failed, and how often it was tried.
ALTER TABLE control.tenants
    ADD COLUMN error text,
    ADD COLUMN attempts integer NOT NULL DEFAULT 0;

-- What a tenant's seeds are given, under the solution's key.
CREATE TABLE control.tenant_properties (
    tenant text NOT NULL REFERENCES control.tenants (name) ON DELETE CASCADE,
    name   text NOT NULL,
    key_id text NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (tenant, name)
);

-- The databases that pgfleet makes for tenants. A row comes before its database and goes after it, so
-- that whoever dies in between leaves a row that says what to look for. `connection` is the string
-- that leads there: '' the default, else a service.
CREATE TABLE control.tenant_databases (
    server            text NOT NULL,
    database          text NOT NULL,
    tenant            text NOT NULL REFERENCES control.tenants (name),
    connection        text NOT NULL DEFAULT '',
    services          text[] NOT NULL,
    state             text NOT NULL CONSTRAINT tenant_databases_state_check CHECK (state IN
                          ('requested', 'creating', 'open', 'closed', 'dropping')),
    system_identifier text NOT NULL DEFAULT '',
    database_oid      oid,
    -- Its size when somebody looked last.
    bytes             bigint NOT NULL DEFAULT 0,
    -- Since when nobody can connect, and when it may be dropped.
    closed_at         timestamptz,
    drop_after        timestamptz,
    made_at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (server, database)
);
CREATE INDEX tenant_databases_tenant_idx ON control.tenant_databases (tenant);

-- A tenant whose database is being moved is served by nobody: services read of it that it is being made.
ALTER TABLE control.tenants ADD COLUMN moving boolean NOT NULL DEFAULT false;
DROP TRIGGER tenants_changed ON control.tenants;
CREATE TRIGGER tenants_changed AFTER INSERT OR DELETE OR UPDATE OF state, moving ON control.tenants
    FOR EACH STATEMENT EXECUTE FUNCTION control.tenants_changed();

CREATE OR REPLACE FUNCTION pgfleet_directory.tenants()
RETURNS TABLE (tenant text, state text, connection text, sealed bytea, key_id text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    WITH me AS MATERIALIZED (SELECT control.calling_service() AS service)
    SELECT t.name, CASE WHEN t.moving AND t.state = 'active' THEN 'creating' ELSE t.state END,
           s.connection, s.sealed, s.key_id
    FROM me CROSS JOIN control.tenants t
    LEFT JOIN control.service_strings s ON s.tenant = t.name AND s.service = me.service
$$;

-- A tenant's database on its way to another server. The row comes before anything is done, and says what
-- to undo or to go on with when the process dies.
CREATE TABLE control.moves (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant          text NOT NULL REFERENCES control.tenants (name) ON DELETE CASCADE,
    -- The strings that lead there, and the services whose data is in it.
    connections     text[] NOT NULL,
    services        text[] NOT NULL,
    from_server     text NOT NULL,
    from_database   text NOT NULL,
    from_identifier text NOT NULL,
    from_oid        oid NOT NULL,
    -- Whether pgfleet made it; one that it did not make is never dropped.
    from_own        boolean NOT NULL,
    to_server       text NOT NULL,
    to_database     text NOT NULL,
    to_oid          oid,
    -- The move of which the new database is the old one, when it is gone back to as it is.
    kept            bigint REFERENCES control.moves (id) ON DELETE SET NULL,
    state           text NOT NULL CONSTRAINT moves_state_check CHECK (state IN
                        ('fencing', 'copying', 'comparing', 'switched', 'done', 'cancelled', 'failed')),
    -- Grows when a process takes the move up, so that another one that was only slow does not go on.
    attempt         integer NOT NULL DEFAULT 0,
    -- Who could connect to the old database before nobody could.
    fenced          jsonb,
    -- What was found to be the same in both.
    contents        jsonb,
    keep_seconds    bigint NOT NULL,
    error           text,
    os_user         text NOT NULL,
    host            text NOT NULL,
    started_at      timestamptz NOT NULL DEFAULT now(),
    ended_at        timestamptz
);
CREATE UNIQUE INDEX moves_unfinished_idx ON control.moves (tenant) WHERE state NOT IN ('done', 'cancelled');

-- One closed database per server and shape (a set of services), from which tenants' databases are
-- copied. `plan` is what is in it: it is at head when that is the plan of the files.
CREATE TABLE control.templates (
    server            text NOT NULL,
    shape             text NOT NULL,
    services          text[] NOT NULL,
    database          text NOT NULL,
    plan              text NOT NULL,
    versions          jsonb NOT NULL DEFAULT '{}',
    bytes             bigint NOT NULL DEFAULT 0,
    system_identifier text NOT NULL DEFAULT '',
    database_oid      oid,
    made_at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (server, shape)
);

-- A target may be on a server that the manifest does not name: then `server` is host:port. `plan` is
-- the files and seeds that it was brought to; other files are another plan.
ALTER TABLE control.targets DROP CONSTRAINT targets_server_fkey;
ALTER TABLE control.targets
    ADD COLUMN plan    text,
    ADD COLUMN pending integer NOT NULL DEFAULT 0,
    ADD COLUMN drift   integer NOT NULL DEFAULT 0,
    ADD COLUMN rollout bigint;
CREATE INDEX targets_tenant_idx ON control.targets (tenant) WHERE tenant <> '';
CREATE INDEX targets_physical_idx ON control.targets (system_identifier, database_oid, service);

-- A rollout: one durable run of migrations over many targets.
CREATE TABLE control.rollouts (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plan         text NOT NULL,
    what         jsonb NOT NULL,
    state        text NOT NULL CONSTRAINT rollouts_state_check CHECK (state IN
                     ('planned', 'running', 'paused', 'halted', 'done', 'cancelled')),
    -- The wave that runs; those below it are over.
    wave         integer NOT NULL DEFAULT 0,
    concurrency  integer NOT NULL,
    canary       integer NOT NULL,
    max_failures integer NOT NULL,
    -- Failures that were there when somebody had it go on: they do not halt it again.
    forgiven     integer NOT NULL DEFAULT 0,
    -- A bundle that it was started from, so that every worker has it.
    bundle       bytea,
    reason       text,
    os_user      text NOT NULL,
    host         text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    started_at   timestamptz,
    ended_at     timestamptz
);
-- One at a time: two plans over the same targets would undo each other's order.
CREATE UNIQUE INDEX rollouts_unfinished_idx ON control.rollouts ((true))
    WHERE state IN ('planned', 'running', 'paused', 'halted');

CREATE TABLE control.rollout_targets (
    rollout    bigint NOT NULL REFERENCES control.rollouts (id) ON DELETE CASCADE,
    position   integer NOT NULL,
    wave       integer NOT NULL,
    kind       text NOT NULL CONSTRAINT rollout_targets_kind_check CHECK (kind IN ('host', 'template', 'tenant')),
    server     text NOT NULL,
    database   text NOT NULL,
    tenant     text NOT NULL DEFAULT '',
    services   text[] NOT NULL,
    state      text NOT NULL DEFAULT 'waiting' CONSTRAINT rollout_targets_state_check CHECK (state IN
                   ('waiting', 'running', 'done', 'failed', 'skipped')),
    -- Whose it is while it runs: the number of an advisory lock that the worker holds as long as it lives.
    worker     integer,
    attempts   integer NOT NULL DEFAULT 0,
    -- What was applied, by service: {"trip": {"from": "1", "to": "3", "applied": ["2_x", "3_y"]}}
    result     jsonb NOT NULL DEFAULT '{}',
    error      text,
    started_at timestamptz,
    ended_at   timestamptz,
    PRIMARY KEY (rollout, position),
    UNIQUE (rollout, server, database)
);
CREATE INDEX rollout_targets_waiting_idx ON control.rollout_targets (rollout, wave, server, position)
    WHERE state = 'waiting';
CREATE INDEX rollout_targets_running_idx ON control.rollout_targets (rollout, wave) WHERE state = 'running';
CREATE INDEX rollout_targets_failed_idx ON control.rollout_targets (rollout) WHERE state = 'failed';

-- Who works on a rollout, and how many databases of each server at a time: {"main": 4}. A worker whose
-- lock is gone is dead, whatever stands here.
CREATE TABLE control.rollout_workers (
    rollout  bigint NOT NULL REFERENCES control.rollouts (id) ON DELETE CASCADE,
    worker   integer NOT NULL,
    os_user  text NOT NULL,
    host     text NOT NULL,
    slots    jsonb NOT NULL DEFAULT '{}',
    since    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (rollout, worker)
);

-- Messages between the parts of the fleet: written in the transaction that causes them, known again by
-- their cause, taken one at a time per target, the oldest first.
CREATE TABLE control.messages (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind       text NOT NULL CONSTRAINT messages_kind_check CHECK (kind IN
                   ('AppliedDatabaseMigrations', 'ApplyDatabaseMigrations', 'TenantCreated',
                    'TenantConnectionStringUpdated')),
    cause      text NOT NULL CONSTRAINT messages_cause_key UNIQUE,
    -- What is worked on, one message at a time.
    target     text NOT NULL,
    body       jsonb NOT NULL,
    state      text NOT NULL DEFAULT 'waiting' CONSTRAINT messages_state_check CHECK (state IN
                   ('waiting', 'running', 'done', 'failed')),
    -- How often it failed, and how often it was taken: a worker that dies has taken it and not failed.
    attempts   integer NOT NULL DEFAULT 0,
    taken      integer NOT NULL DEFAULT 0,
    not_before timestamptz NOT NULL DEFAULT now(),
    worker     integer,
    error      text,
    note       text,
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at   timestamptz
);
CREATE UNIQUE INDEX messages_running_idx ON control.messages (target) WHERE state = 'running';
CREATE INDEX messages_waiting_idx ON control.messages (id) WHERE state = 'waiting';
CREATE INDEX messages_work_idx ON control.messages (target, id) WHERE state IN ('waiting', 'running');
CREATE INDEX messages_failed_idx ON control.messages (target) WHERE state = 'failed';
CREATE INDEX messages_ended_idx ON control.messages (ended_at) WHERE state = 'done';

-- Which runs on hosts were announced.
CREATE INDEX applied_hosts_idx ON control.applied (target, run) WHERE target = set_name;

-- A host database was migrated: its history said so. A tenant's database is announced as service/tenant,
-- and nothing follows from it. The row of the service's own set is in every announcement.
CREATE FUNCTION control.message_of_applied() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO control.messages (kind, cause, target, body)
    VALUES ('AppliedDatabaseMigrations', 'applied/' || NEW.system_identifier || '/' || NEW.database_oid || '/' || NEW.run,
            NEW.target,
            jsonb_build_object('service', NEW.target, 'database', NEW.database, 'run', NEW.run,
                               'from', NEW.from_version, 'to', NEW.to_version))
    ON CONFLICT (cause) DO NOTHING;
    RETURN NULL;
END
$$;
CREATE TRIGGER message_of_applied AFTER INSERT ON control.applied
    FOR EACH ROW WHEN (NEW.target = NEW.set_name) EXECUTE FUNCTION control.message_of_applied();

CREATE FUNCTION control.message_of_tenant() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO control.messages (kind, cause, target, body)
    VALUES ('TenantCreated', 'tenant/' || NEW.name || '/' || extract(epoch FROM NEW.created_at), NEW.name,
            jsonb_build_object('tenant', NEW.name))
    ON CONFLICT (cause) DO NOTHING;
    RETURN NULL;
END
$$;
CREATE TRIGGER message_of_tenant AFTER INSERT ON control.tenants
    FOR EACH ROW EXECUTE FUNCTION control.message_of_tenant();

CREATE FUNCTION control.message_of_string() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Under another key it is the same string.
    IF TG_OP = 'UPDATE' AND NEW.changed_at = OLD.changed_at THEN
        RETURN NULL;
    END IF;
    -- What a tenant is made with belongs to its making.
    IF EXISTS (SELECT FROM control.tenants t WHERE t.name = NEW.tenant
               AND (t.state IN ('requested', 'creating') OR t.created_at = now())) THEN
        RETURN NULL;
    END IF;
    INSERT INTO control.messages (kind, cause, target, body)
    VALUES ('TenantConnectionStringUpdated',
            'string/' || NEW.tenant || '/' || NEW.connection || '/' || extract(epoch FROM NEW.changed_at), NEW.tenant,
            jsonb_build_object('tenant', NEW.tenant, 'connection', NEW.connection))
    ON CONFLICT (cause) DO NOTHING;
    RETURN NULL;
END
$$;
CREATE TRIGGER message_of_string AFTER INSERT OR UPDATE ON control.tenant_strings
    FOR EACH ROW EXECUTE FUNCTION control.message_of_string();

-- Whoever brings a target to where it should be settles what failed there.
CREATE FUNCTION control.messages_settled() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE control.messages m SET state = 'done', ended_at = now(), note = 'the database was brought there since'
    FROM changed c
    WHERE m.state = 'failed' AND m.kind = 'ApplyDatabaseMigrations' AND c.state = 'current'
      AND m.target = CASE c.tenant WHEN '' THEN c.service ELSE c.service || '/' || c.tenant END;
    RETURN NULL;
END
$$;
CREATE TRIGGER messages_settled_at_first AFTER INSERT ON control.targets
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION control.messages_settled();
CREATE TRIGGER messages_settled AFTER UPDATE ON control.targets
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION control.messages_settled();

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA control FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA control FROM PUBLIC;
