-- What the product knows about its customers. Where their databases are is in pgfleet's control database, sealed.
create table tenants (
    id uuid not null default gen_random_uuid(),
    name varchar(63) not null,
    display_name varchar(128) not null,
    edition_id uuid,
    activation_state varchar(16) not null default 'active',
    activation_end_time timestamptz,
    creation_time timestamptz not null default current_timestamp,
    creator_id uuid,
    last_modification_time timestamptz,
    last_modifier_id uuid,
    is_deleted boolean not null default false,
    deleter_id uuid,
    deletion_time timestamptz,
    extra_properties jsonb not null default '{}',
    concurrency_stamp varchar(40) not null default gen_random_uuid()::text,
    constraint pk_tenants primary key (id),
    constraint uq_tenants_name unique (name),
    constraint fk_tenants_editions foreign key (edition_id) references editions (id),
    constraint ck_tenants_activation_state check (activation_state in ('active', 'active_until', 'passive')),
    constraint ck_tenants_activation_end_time
        check (activation_state <> 'active_until' or activation_end_time is not null)
);

comment on column tenants.name is 'The tenant''s name in pgfleet, and tenant_id in every other table';

create index ix_tenants_edition_id on tenants (edition_id);
