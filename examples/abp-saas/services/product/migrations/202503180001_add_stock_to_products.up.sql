alter table products
    add column stock_count integer not null default 0,
    add constraint ck_products_stock_count check (stock_count >= 0);
