drop table openiddict_authorizations;
