drop table openiddict_scopes;
