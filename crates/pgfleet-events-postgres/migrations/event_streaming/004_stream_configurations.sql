-- What is configured for streams and queues; what has no row has the defaults.

CREATE TABLE :"schema".stream_configurations (
    kind text NOT NULL CHECK (kind IN ('stream', 'queue')),
    name text COLLATE "C" NOT NULL,
    max_attempts int NOT NULL,
    visibility interval NOT NULL,
    dedup_window interval NOT NULL,
    park_keys boolean NOT NULL,
    max_length bigint NOT NULL,
    keep_dead interval NOT NULL,
    max_age interval,
    max_count bigint,
    max_bytes bigint,
    index_data boolean NOT NULL,
    closed boolean NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT stream_configurations_pkey PRIMARY KEY (kind, name)
);
