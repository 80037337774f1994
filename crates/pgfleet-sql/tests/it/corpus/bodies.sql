-- 21 statements
create table corpus_t (id int, begin int, atomic int, "end" int);
create function one() returns int language sql begin atomic select 1; end;
create or replace function one() returns int begin atomic; ; select 1; ; end;
create function begin_first() returns int begin atomic select begin from corpus_t; end;
create function alias_traps() returns int begin atomic select begin atomic from corpus_t; select t.begin atomic from corpus_t as t; end;
create function from_trap() returns int begin atomic select 1 from corpus_t begin; select 1 from corpus_t as atomic; end;
create function case_traps() returns int begin atomic select case when true then case 1 when 1 then 2 else 3 end end; select case 1 when 1 then 2 end as "end"; end;
create function label_traps() returns int begin atomic select 1 end; select 1 as end; select t."end" from corpus_t as t; end;
create procedure writes(a int) begin atomic insert into corpus_t (id) values (a); update corpus_t set begin = a where id = a; delete from corpus_t where id = a; end;
create or replace procedure writes(a int default 1) begin atomic end;
create function arguments(begin int, atomic int) returns int return begin + atomic;
create function table_of() returns table (begin int, atomic int) begin atomic select 1, 2; end;
create function options() returns int immutable strict parallel safe set search_path to begin begin atomic select 1; end;
create function quoted() returns text begin atomic select 'end;'::text; select $$end;$$::text; select "end"::text from corpus_t; end;
create function comments() returns int begin atomic -- end;
  select 1; /* end; */
  -- ;
end;
create function with_cte() returns int begin atomic with begin as (select 1 as atomic) select atomic from begin; end;
create function returned() returns int begin atomic return 1; end;
create function plain() returns int language plpgsql as $$ begin if true then return 1; end if; end; $$;
create rule noted as on insert to corpus_t do also (insert into corpus_t_log values (new.id); notify corpus;);
create rule silent as on delete to corpus_t do instead nothing;
begin;
