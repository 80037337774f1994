drop table openiddict_tokens;
