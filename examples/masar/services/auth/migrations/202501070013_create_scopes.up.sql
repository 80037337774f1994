create table openiddict_scopes (
    id varchar(450) not null,
    name varchar(200) not null,
    display_name varchar(200),
    description text,
    resources text,
    constraint pk_openiddict_scopes primary key (id),
    constraint uq_openiddict_scopes_name unique (name)
);

comment on table openiddict_scopes is 'OAuth scopes';
comment on column openiddict_scopes.resources is 'JSON array';
