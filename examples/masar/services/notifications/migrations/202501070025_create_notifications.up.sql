create table notifications (
    id varchar(50) not null,
    user_id varchar(450) not null,
    user_type varchar(50) not null,
    device_token_id varchar(450),
    title varchar(200) not null,
    body varchar(1000) not null,
    data jsonb,
    status varchar(50) not null default 'Pending',
    error varchar(1000),
    sent_at timestamptz,
    read_at timestamptz,
    created_at timestamptz not null default current_timestamp,
    updated_at timestamptz not null default current_timestamp,
    is_deleted boolean not null default false,
    deleted_at timestamptz,
    constraint pk_notifications primary key (id),
    -- The history outlives the device it went to.
    constraint fk_notifications_device_tokens foreign key (device_token_id)
        references device_tokens (id) on delete set null,
    constraint ck_notifications_status check (status in ('Pending', 'Sent', 'Failed'))
);

comment on column notifications.user_id is 'id of a driver or passenger in the user service';

create index ix_notifications_device_token_id on notifications (device_token_id);

-- The inbox of one user, newest first.
create index ix_notifications_user_id_created_at on notifications (user_id, created_at);
