-- What was translated at run time, over what the programs bring along.
create table language_texts (
    id uuid not null default gen_random_uuid(),
    tenant_id varchar(63),
    resource_name varchar(128) not null,
    culture_name varchar(10) not null,
    name varchar(512) not null,
    value text not null,
    creation_time timestamptz not null default current_timestamp,
    creator_id uuid,
    last_modification_time timestamptz,
    last_modifier_id uuid,
    constraint pk_language_texts primary key (id),
    constraint uq_language_texts_tenant_id_resource_culture_name
        unique nulls not distinct (tenant_id, resource_name, culture_name, name)
);

comment on column language_texts.tenant_id is 'Name of the tenant; null: the host';
