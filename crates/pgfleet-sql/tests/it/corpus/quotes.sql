-- 30 statements
select ';';
select 'it''s; fine', '''', ''';''', '';
select '\', ';';
select E'\';', e'\\', E'a;\'\\\';b';
select E'line\
;end', E'\n;', E'\x3b', E'\u003b;';
select U&'d\0061t;a', u&'\\;', U&'!0041;' uescape '!';
select U&"d\0061t;a" from (select 1 as "data;a") as t where false;
select N'national; text', n'\';
select B'0101', b'', X'1F', x'';
select "a;b" from (select 1 as "a;b") as t;
select """;" from (select 1 as """;") as t;
select "it's;" from (select 1 as "it's;") as t;
select $$;$$, $$it's; "fine" -- not a comment
/* nor this */$$;
select $a$;$$;$b$;$A$;$a$, $a_1$;$a_1$, $größe$;$größe$;
select $a$$a$, $$$$, $_$;$_$;
select $$ $a$ ; $$, $a$ $$ ; $a$;
select 'first'
'; second'
  ';';
select 'first' -- ' comment; with a quote
'; second';
select E'first;'

	'; second';
select a$b, a$1$ from (select 1 as a$b, 2 as a$1$) as t;
select 1 as$$, 2 from (values (1)) as t(x$$) where x$$ is null;
do $body$ begin perform ';', $inner$;$inner$; end; $body$;
do language plpgsql $$ begin null; /* ; */ end $$;
do 'begin perform 1; end';
create function pg_temp.quoted() returns text as 'select ''a;b''::text;' language sql;
create function pg_temp.tagged() returns text as $fn$ select $x$a;b$x$::text; select ';'::text; $fn$ language sql;
comment on schema public is 'semi;colon
-- and a line';
prepare p(int, text) as select $1, $2 || ';$1';
select '{"a": ";", "b": [1, 2]}'::jsonb ->> 'a', '[1;2]' ~ ';';
values ('a;'), (';b'), (E'\';')
