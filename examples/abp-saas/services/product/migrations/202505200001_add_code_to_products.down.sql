alter table products drop column code;
