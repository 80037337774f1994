-- The mails that were sent, each once, by the id of its message in the queue.
CREATE TABLE sent (
    id uuid PRIMARY KEY,
    order_id text NOT NULL,
    address text NOT NULL,
    sent_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
