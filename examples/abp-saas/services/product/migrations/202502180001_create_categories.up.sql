create table categories (
    id uuid not null default gen_random_uuid(),
    tenant_id varchar(63),
    name varchar(128) not null,
    parent_id uuid,
    creation_time timestamptz not null default current_timestamp,
    constraint pk_categories primary key (id),
    constraint fk_categories_categories foreign key (parent_id) references categories (id),
    constraint uq_categories_tenant_id_name unique nulls not distinct (tenant_id, name)
);

comment on column categories.tenant_id is 'Name of the tenant; null: the host';

create index ix_categories_parent_id on categories (parent_id);

alter table products
    add column category_id uuid,
    add constraint fk_products_categories foreign key (category_id) references categories (id) on delete set null;

create index ix_products_category_id on products (category_id);
