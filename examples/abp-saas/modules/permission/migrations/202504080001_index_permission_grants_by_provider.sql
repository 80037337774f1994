-- All grants of one role, user or client: what is asked for at every sign-in.
create index ix_permission_grants_tenant_id_provider
    on permission_grants (tenant_id, provider_name, provider_key) include (name);
