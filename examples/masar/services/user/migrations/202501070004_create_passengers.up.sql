create table passengers (
    id varchar(50) not null,
    phone_number varchar(450) not null,
    full_name varchar(256),
    date_of_birth date,
    profile_picture_url text,
    is_phone_verified boolean not null default false,
    is_profile_complete boolean not null default false,
    is_active boolean not null default true,
    last_login_at timestamptz,
    created_at timestamptz not null default current_timestamp,
    updated_at timestamptz not null default current_timestamp,
    is_deleted boolean not null default false,
    deleted_at timestamptz,
    constraint pk_passengers primary key (id)
);

create unique index ix_passengers_phone_number on passengers (phone_number);

create index ix_passengers_is_deleted_is_active on passengers (is_deleted, is_active);
