-- The control database: what pgfleet knows of the solution. A catalogue, never the truth about a
-- server or a target: those are asked whenever it matters.

CREATE SCHEMA control;
REVOKE ALL ON SCHEMA control FROM PUBLIC;

CREATE TABLE control.servers (
    name              text PRIMARY KEY,
    address           text NOT NULL,
    system_identifier text NOT NULL DEFAULT '',
    version           integer NOT NULL DEFAULT 0,
    seen_at           timestamptz NOT NULL DEFAULT now()
);

-- One row per physical database: whoever changes a target by other means than migrating deletes
-- its row in the same action.
CREATE TABLE control.targets (
    server            text NOT NULL REFERENCES control.servers (name) ON DELETE CASCADE,
    database          text NOT NULL,
    service           text NOT NULL,
    tenant            text NOT NULL DEFAULT '',
    set_name          text NOT NULL,
    system_identifier text NOT NULL DEFAULT '',
    database_oid      oid,
    version           text,
    state             text NOT NULL CONSTRAINT targets_state_check CHECK (state IN
                          ('current', 'behind', 'failed', 'interrupted', 'ahead', 'unreachable', 'unknown')),
    error             text,
    verified_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (server, database, set_name)
);
CREATE INDEX targets_service_idx ON control.targets (service, tenant);

-- What provisioning made, for finding it again when the manifest no longer names it.
CREATE TABLE control.provisioned (
    server   text NOT NULL REFERENCES control.servers (name) ON DELETE CASCADE,
    kind     text NOT NULL CONSTRAINT provisioned_kind_check CHECK (kind IN ('database', 'role')),
    name     text NOT NULL,
    service  text NOT NULL,
    seen_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (server, kind, name)
);

-- Passwords, encrypted with a key that is not in this database.
CREATE TABLE control.credentials (
    server     text NOT NULL,
    role       text NOT NULL,
    key_id     text NOT NULL,
    sealed     bytea NOT NULL,
    verifier   text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (server, role)
);

CREATE TABLE control.audit (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT now(),
    os_user text NOT NULL,
    host    text NOT NULL,
    action  text NOT NULL,
    subject text NOT NULL,
    detail  jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_at_idx ON control.audit (at);
