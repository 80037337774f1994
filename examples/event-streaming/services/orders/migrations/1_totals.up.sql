-- What customers have ordered, made of the events: see src/totals.rs.
CREATE TABLE totals (
    customer text PRIMARY KEY,
    orders bigint NOT NULL,
    amount bigint NOT NULL
);
