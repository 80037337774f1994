-- What runs applied to targets, as the targets' own histories say it: announced after it is on
-- disk there, and known again by its run when it is announced twice.
CREATE TABLE control.applied (
    system_identifier text NOT NULL,
    database_oid      oid NOT NULL,
    run               uuid NOT NULL,
    set_name          text NOT NULL,
    target            text NOT NULL,
    database          text NOT NULL,
    from_version      text,
    to_version        text,
    versions          text[] NOT NULL,
    announced_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (system_identifier, database_oid, run, set_name)
);
CREATE INDEX applied_announced_at_idx ON control.applied (announced_at);
