create table admins (
    id varchar(50) not null,
    email varchar(256) not null,
    full_name varchar(256),
    password_hash varchar(500),
    is_active boolean not null default true,
    last_login_at timestamptz,
    created_at timestamptz not null default current_timestamp,
    updated_at timestamptz not null default current_timestamp,
    is_deleted boolean not null default false,
    deleted_at timestamptz,
    constraint pk_admins primary key (id)
);

comment on column admins.password_hash is
    'Argon2id hash, never the password; null until the first password is set, and null matches nothing';

-- On the lower-case address, because people do not type their address in one case.
create unique index ix_admins_email on admins (lower(email));

create index ix_admins_is_deleted_is_active on admins (is_deleted, is_active);
