create table items (
    id    bigint generated always as identity primary key,
    name  text not null,
    price numeric(12, 2) not null
);
insert into items (name, price) select 'item ' || n, n from generate_series(1, 2500) n;
