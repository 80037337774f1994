-- Messages that a broker carries: each row is published when it is due and the first of its target, and again when it was
-- tried, given back or left by somebody who died. The row stays what decides.
ALTER TABLE control.messages ADD COLUMN published_at timestamptz;
