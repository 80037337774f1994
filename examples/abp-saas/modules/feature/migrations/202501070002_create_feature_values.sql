-- Of an edition or a tenant, which the provider names: so the key of a tenant's value is the tenant.
create table feature_values (
    id uuid not null default gen_random_uuid(),
    name varchar(128) not null,
    value varchar(128) not null,
    provider_name varchar(64) not null,
    provider_key varchar(64),
    creation_time timestamptz not null default current_timestamp,
    last_modification_time timestamptz,
    constraint pk_feature_values primary key (id),
    constraint uq_feature_values_name_provider unique nulls not distinct (name, provider_name, provider_key)
);

create index ix_feature_values_provider on feature_values (provider_name, provider_key);
