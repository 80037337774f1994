create table organization_units (
    id uuid not null default gen_random_uuid(),
    tenant_id varchar(63),
    parent_id uuid,
    code varchar(95) not null,
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
    constraint pk_organization_units primary key (id),
    constraint fk_organization_units_organization_units foreign key (parent_id) references organization_units (id),
    constraint uq_organization_units_tenant_id_code unique nulls not distinct (tenant_id, code)
);

comment on column organization_units.code is 'Path from the root, five digits a step: 00001.00042';

create index ix_organization_units_parent_id on organization_units (parent_id);

create table organization_unit_roles (
    organization_unit_id uuid not null,
    role_id uuid not null,
    tenant_id varchar(63),
    creation_time timestamptz not null default current_timestamp,
    creator_id uuid,
    constraint pk_organization_unit_roles primary key (organization_unit_id, role_id),
    constraint fk_organization_unit_roles_organization_units foreign key (organization_unit_id)
        references organization_units (id) on delete cascade,
    constraint fk_organization_unit_roles_roles foreign key (role_id) references roles (id) on delete cascade
);

create index ix_organization_unit_roles_role_id on organization_unit_roles (role_id);

create table user_organization_units (
    user_id uuid not null,
    organization_unit_id uuid not null,
    tenant_id varchar(63),
    creation_time timestamptz not null default current_timestamp,
    creator_id uuid,
    constraint pk_user_organization_units primary key (user_id, organization_unit_id),
    constraint fk_user_organization_units_users foreign key (user_id) references users (id) on delete cascade,
    constraint fk_user_organization_units_organization_units foreign key (organization_unit_id)
        references organization_units (id) on delete cascade
);

create index ix_user_organization_units_organization_unit_id on user_organization_units (organization_unit_id);
