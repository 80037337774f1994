create table openiddict_scopes (
    id uuid not null default gen_random_uuid(),
    name varchar(200) not null,
    display_name varchar(200),
    description text,
    resources jsonb not null default '[]',
    properties jsonb not null default '{}',
    creation_time timestamptz not null default current_timestamp,
    creator_id uuid,
    last_modification_time timestamptz,
    last_modifier_id uuid,
    concurrency_stamp varchar(40) not null default gen_random_uuid()::text,
    constraint pk_openiddict_scopes primary key (id),
    constraint uq_openiddict_scopes_name unique (name)
);

comment on table openiddict_scopes is 'OAuth scopes, each with the services that it opens';
