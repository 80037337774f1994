create table products (
    id uuid not null default gen_random_uuid(),
    tenant_id varchar(63),
    name varchar(128) not null,
    price numeric(10, 2) not null,
    creation_time timestamptz not null default current_timestamp,
    creator_id uuid,
    last_modification_time timestamptz,
    last_modifier_id uuid,
    is_deleted boolean not null default false,
    deleter_id uuid,
    deletion_time timestamptz,
    extra_properties jsonb not null default '{}',
    concurrency_stamp varchar(40) not null default gen_random_uuid()::text,
    constraint pk_products primary key (id),
    constraint ck_products_price check (price >= 0)
);

comment on column products.tenant_id is 'Name of the tenant; null: the host';

create index ix_products_tenant_id_creation_time on products (tenant_id, creation_time);
