create table retention_policies (
    id uuid not null default gen_random_uuid(),
    tenant_id varchar(63),
    keep_days integer not null default 365,
    creation_time timestamptz not null default current_timestamp,
    last_modification_time timestamptz,
    constraint pk_retention_policies primary key (id),
    constraint uq_retention_policies_tenant_id unique nulls not distinct (tenant_id),
    constraint ck_retention_policies_keep_days check (keep_days between 1 and 3650)
);

comment on column retention_policies.tenant_id is 'Name of the tenant; null: the host';
