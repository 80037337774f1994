alter table products drop column stock_count;
