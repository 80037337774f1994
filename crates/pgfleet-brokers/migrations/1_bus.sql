-- Who receives what of the messages between services; each group has a queue of its name.
CREATE TABLE bus_subscriptions (
    bus          text        NOT NULL,
    "group"      text        NOT NULL,
    -- A `*` at the end stands for all that begin so.
    topics       text[]      NOT NULL,
    subscribed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_bus_subscriptions PRIMARY KEY (bus, "group")
);
