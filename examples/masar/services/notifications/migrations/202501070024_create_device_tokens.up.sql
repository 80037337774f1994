create table device_tokens (
    id varchar(450) not null,
    user_id varchar(450) not null,
    user_type varchar(50) not null,
    device_token varchar(500) not null,
    platform varchar(50),
    app_version varchar(20),
    is_active boolean not null default true,
    created_at_utc timestamptz not null default current_timestamp,
    updated_at_utc timestamptz not null default current_timestamp,
    constraint pk_device_tokens primary key (id),
    constraint uq_device_tokens_user_token unique (user_id, device_token)
);

comment on column device_tokens.user_id is 'id of a driver or passenger in the user service';
comment on column device_tokens.platform is 'ios or android';

create index ix_device_tokens_user_id on device_tokens (user_id);

create index ix_device_tokens_user_type on device_tokens (user_type);

create index ix_device_tokens_is_active on device_tokens (is_active);
