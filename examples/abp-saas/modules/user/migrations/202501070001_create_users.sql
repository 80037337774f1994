create table users (
    id uuid not null default gen_random_uuid(),
    tenant_id varchar(63),
    user_name varchar(256) not null,
    normalized_user_name varchar(256) not null,
    name varchar(64),
    surname varchar(64),
    email varchar(256) not null,
    normalized_email varchar(256) not null,
    email_confirmed boolean not null default false,
    password_hash varchar(256),
    security_stamp varchar(256) not null default gen_random_uuid()::text,
    phone_number varchar(16),
    phone_number_confirmed boolean not null default false,
    is_external boolean not null default false,
    is_active boolean not null default true,
    two_factor_enabled boolean not null default false,
    lockout_end timestamptz,
    lockout_enabled boolean not null default true,
    access_failed_count integer not null default 0,
    should_change_password_on_next_login boolean not null default false,
    last_password_change_time timestamptz,
    creation_time timestamptz not null default current_timestamp,
    creator_id uuid,
    last_modification_time timestamptz,
    last_modifier_id uuid,
    is_deleted boolean not null default false,
    deleter_id uuid,
    deletion_time timestamptz,
    extra_properties jsonb not null default '{}',
    concurrency_stamp varchar(40) not null default gen_random_uuid()::text,
    constraint pk_users primary key (id),
    -- Deleted users too: a name stays taken until the row is gone.
    constraint uq_users_tenant_id_normalized_user_name unique nulls not distinct (tenant_id, normalized_user_name),
    constraint uq_users_tenant_id_normalized_email unique nulls not distinct (tenant_id, normalized_email)
);

comment on column users.tenant_id is 'Name of the tenant; null: the host';
comment on column users.password_hash is 'Argon2id hash, never the password; null matches nothing';
