create table editions (
    id uuid not null default gen_random_uuid(),
    display_name varchar(128) not null,
    creation_time timestamptz not null default current_timestamp,
    creator_id uuid,
    last_modification_time timestamptz,
    last_modifier_id uuid,
    is_deleted boolean not null default false,
    deleter_id uuid,
    deletion_time timestamptz,
    extra_properties jsonb not null default '{}',
    concurrency_stamp varchar(40) not null default gen_random_uuid()::text,
    constraint pk_editions primary key (id)
);

-- Partial, so that the name of a deleted edition can be used again.
create unique index uq_editions_display_name on editions (display_name) where not is_deleted;
