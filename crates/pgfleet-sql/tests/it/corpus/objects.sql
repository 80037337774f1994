-- 40 statements
create schema corpus create table a (id int primary key) create view v as select id from a create index on a (id);
set search_path = corpus, public;
create type state as enum ('new', 'done;', 'it''s');
create type pair as (a int, b text);
create domain positive as int check (value > 0 and value <> 3);
create table if not exists item (
    id bigint generated always as identity primary key,
    name text not null default 'a;b' check (name <> ';'),
    price numeric(10, 2) default -1.50e0 check (price >= -1.50),
    tags text[] default '{";"}',
    created timestamptz default now(),
    exclude using gist (int8range(id, id + 1) with &&)
);
create unlogged table if not exists log (at timestamptz, text text) partition by range (at);
create table log_2026 partition of log for values from ('2026-01-01') to ('2027-01-01');
alter table item add column state state not null default 'new', alter column name set default E'\';', drop constraint if exists x;
create unique index concurrently if not exists ix_item_name on item (lower(name), (price + 1)) include (tags) where name <> ';';
create index on item using gin (tags);
comment on column item.name is $$a 'comment'; with "quotes"$$;
comment on table item is null;
create sequence s start 1 increment by 2;
create view recent as select * from item where created > now() - interval '1 day; 2';
create or replace view recent with (security_barrier) as table item;
create materialized view counts as select count(*) from item with no data;
refresh materialized view counts;
create extension if not exists "uuid-ossp" with schema public;
create trigger touch before insert or update on item for each row when (new.name is distinct from ';') execute function touch('a;b');
create policy own on item for all to public using (name = current_user) with check (true);
alter table item enable row level security;
grant select, insert (name), update (name) on item to public;
revoke all on schema corpus from public cascade;
create role "odd;role" nologin;
alter role "odd;role" set search_path to 'a;b', c;
insert into item (name, price) values ('a;', 1), (';b', 2.5), ('c', 31) on conflict (id) do update set name = excluded.name || ';' returning id;
update item set (name, price) = (select ';', 1) where id = any(array[1, 2, 3]) and tags[1:2] = '{}';
delete from item using log where log.text = item.name;
merge into item using (values (1, ';')) as n(id, name) on item.id = n.id when matched then update set name = n.name when not matched then do nothing;
with recursive r(n) as (values (1) union all select n + 1 from r where n < 10) select n from r;
select * from item for update skip locked;
explain (costs off, format json) select 1;
copy item to '/dev/null' with (format csv, delimiter ';');
do $$ declare x text := ';'; begin execute format('select %L;', x); end $$;
lock table item in access exclusive mode;
analyze item;
vacuum (full, analyze) item;
create publication p for table item (id, name) where (name <> ';');
drop table if exists item, log cascade
