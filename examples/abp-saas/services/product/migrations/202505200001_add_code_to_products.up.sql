-- A code that customers can say on the telephone. Those that are there get one from their id.
alter table products add column code varchar(32);

update products set code = upper(left(replace(id::text, '-', ''), 12));

alter table products
    alter column code set not null,
    alter column code set default upper(left(replace(gen_random_uuid()::text, '-', ''), 12)),
    add constraint uq_products_tenant_id_code unique nulls not distinct (tenant_id, code);
