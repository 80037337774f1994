-- What the pruning of expired tokens looks for.
create index ix_openiddict_tokens_expiration_date on openiddict_tokens (expiration_date);
