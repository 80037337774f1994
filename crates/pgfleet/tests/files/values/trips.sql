CREATE TABLE trips (
    id varchar(50) PRIMARY KEY,
    driver_id varchar(50) NOT NULL,
    departs_at timestamptz NOT NULL,
    seats int NOT NULL CHECK (seats >= 0),
    fare numeric(10,2) NOT NULL,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    is_deleted boolean NOT NULL DEFAULT false,
    deleted_at timestamptz
);

CREATE INDEX ix_trips_driver_id ON trips (driver_id, departs_at DESC, id) WHERE NOT is_deleted;
