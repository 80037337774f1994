create table settings (
    id uuid not null default gen_random_uuid(),
    tenant_id varchar(63),
    name varchar(128) not null,
    value varchar(2048) not null,
    provider_name varchar(64) not null,
    provider_key varchar(64),
    creation_time timestamptz not null default current_timestamp,
    last_modification_time timestamptz,
    constraint pk_settings primary key (id),
    constraint uq_settings_tenant_id_name_provider
        unique nulls not distinct (tenant_id, name, provider_name, provider_key)
);

comment on column settings.tenant_id is 'Name of the tenant; null: the host';
comment on column settings.provider_name is 'G for all, T of the tenant, U of the user named by provider_key';
comment on column settings.value is 'Encrypted by the service where the setting is a secret';
