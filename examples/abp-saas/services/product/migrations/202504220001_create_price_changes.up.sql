create table price_changes (
    id uuid not null default gen_random_uuid(),
    tenant_id varchar(63),
    product_id uuid not null,
    price numeric(10, 2) not null,
    valid_from timestamptz not null default current_timestamp,
    creator_id uuid,
    constraint pk_price_changes primary key (id),
    constraint fk_price_changes_products foreign key (product_id) references products (id) on delete cascade,
    constraint ck_price_changes_price check (price >= 0)
);

create index ix_price_changes_product_id_valid_from on price_changes (product_id, valid_from);

-- What is known of the past: the price of today, since the product is there.
insert into price_changes (tenant_id, product_id, price, valid_from, creator_id)
select tenant_id, id, price, creation_time, creator_id from products;
