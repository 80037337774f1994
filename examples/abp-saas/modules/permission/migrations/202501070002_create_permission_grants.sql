-- Names, not ids: a grant outlives the definition that a release takes away, and comes back with it.
create table permission_grants (
    id uuid not null default gen_random_uuid(),
    tenant_id varchar(63),
    name varchar(128) not null,
    provider_name varchar(64) not null,
    provider_key varchar(64) not null,
    creation_time timestamptz not null default current_timestamp,
    constraint pk_permission_grants primary key (id),
    constraint uq_permission_grants_tenant_id_name_provider
        unique nulls not distinct (tenant_id, name, provider_name, provider_key)
);

comment on column permission_grants.tenant_id is 'Name of the tenant; null: the host';
comment on column permission_grants.provider_key is 'Name of the role, id of the user or of the client';
