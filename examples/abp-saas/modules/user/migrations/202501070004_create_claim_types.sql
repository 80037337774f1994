-- Which claims there can be: the host's, the same for every tenant.
create table claim_types (
    id uuid not null default gen_random_uuid(),
    name varchar(256) not null,
    required boolean not null default false,
    is_static boolean not null default false,
    regex varchar(512),
    regex_description varchar(128),
    description varchar(256),
    value_type varchar(16) not null default 'string',
    creation_time timestamptz not null default current_timestamp,
    extra_properties jsonb not null default '{}',
    concurrency_stamp varchar(40) not null default gen_random_uuid()::text,
    constraint pk_claim_types primary key (id),
    constraint uq_claim_types_name unique (name),
    constraint ck_claim_types_value_type check (value_type in ('string', 'integer', 'boolean', 'timestamp'))
);
