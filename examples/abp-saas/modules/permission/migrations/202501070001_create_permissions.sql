-- What can be granted: the same for the host and for every tenant, so without tenant_id.
create table permission_groups (
    id uuid not null default gen_random_uuid(),
    name varchar(128) not null,
    display_name varchar(256) not null,
    extra_properties jsonb not null default '{}',
    constraint pk_permission_groups primary key (id),
    constraint uq_permission_groups_name unique (name)
);

create table permissions (
    id uuid not null default gen_random_uuid(),
    group_name varchar(128) not null,
    name varchar(128) not null,
    parent_name varchar(128),
    display_name varchar(256) not null,
    is_enabled boolean not null default true,
    multi_tenancy_side varchar(6) not null default 'both',
    providers text[],
    extra_properties jsonb not null default '{}',
    constraint pk_permissions primary key (id),
    constraint uq_permissions_name unique (name),
    constraint fk_permissions_permission_groups foreign key (group_name) references permission_groups (name),
    constraint fk_permissions_permissions foreign key (parent_name) references permissions (name),
    constraint ck_permissions_multi_tenancy_side check (multi_tenancy_side in ('host', 'tenant', 'both'))
);

comment on column permissions.providers is
    'To whom it may be granted: R roles, U users, C clients; null: to all of them';

create index ix_permissions_group_name on permissions (group_name);

create index ix_permissions_parent_name on permissions (parent_name);
