create table languages (
    id uuid not null default gen_random_uuid(),
    tenant_id varchar(63),
    culture_name varchar(10) not null,
    ui_culture_name varchar(10) not null,
    display_name varchar(32) not null,
    is_enabled boolean not null default true,
    creation_time timestamptz not null default current_timestamp,
    creator_id uuid,
    last_modification_time timestamptz,
    last_modifier_id uuid,
    extra_properties jsonb not null default '{}',
    concurrency_stamp varchar(40) not null default gen_random_uuid()::text,
    constraint pk_languages primary key (id),
    constraint uq_languages_tenant_id_culture_name unique nulls not distinct (tenant_id, culture_name)
);

comment on column languages.tenant_id is 'Name of the tenant; null: the host';
