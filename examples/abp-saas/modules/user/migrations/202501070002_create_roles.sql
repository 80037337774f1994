create table roles (
    id uuid not null default gen_random_uuid(),
    tenant_id varchar(63),
    name varchar(256) not null,
    normalized_name varchar(256) not null,
    is_default boolean not null default false,
    is_static boolean not null default false,
    is_public boolean not null default false,
    creation_time timestamptz not null default current_timestamp,
    extra_properties jsonb not null default '{}',
    concurrency_stamp varchar(40) not null default gen_random_uuid()::text,
    constraint pk_roles primary key (id),
    constraint uq_roles_tenant_id_normalized_name unique nulls not distinct (tenant_id, normalized_name)
);

comment on column roles.tenant_id is 'Name of the tenant; null: the host';
comment on column roles.is_static is 'Cannot be renamed or deleted';
comment on column roles.is_default is 'New users get it';

create table user_roles (
    user_id uuid not null,
    role_id uuid not null,
    tenant_id varchar(63),
    constraint pk_user_roles primary key (user_id, role_id),
    constraint fk_user_roles_users foreign key (user_id) references users (id) on delete cascade,
    constraint fk_user_roles_roles foreign key (role_id) references roles (id) on delete cascade
);

create index ix_user_roles_role_id on user_roles (role_id);

create table role_claims (
    id uuid not null default gen_random_uuid(),
    role_id uuid not null,
    tenant_id varchar(63),
    claim_type varchar(256) not null,
    claim_value varchar(1024),
    constraint pk_role_claims primary key (id),
    constraint fk_role_claims_roles foreign key (role_id) references roles (id) on delete cascade
);

create index ix_role_claims_role_id on role_claims (role_id);
