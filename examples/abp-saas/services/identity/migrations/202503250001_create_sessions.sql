create table sessions (
    id uuid not null default gen_random_uuid(),
    tenant_id varchar(63),
    user_id uuid not null,
    device varchar(64) not null,
    device_info varchar(256),
    client_id varchar(100),
    ip_addresses varchar(2048),
    signed_in timestamptz not null default current_timestamp,
    last_accessed timestamptz,
    constraint pk_sessions primary key (id),
    constraint fk_sessions_users foreign key (user_id) references users (id) on delete cascade
);

comment on column sessions.tenant_id is 'Name of the tenant; null: the host';

create index ix_sessions_user_id on sessions (user_id);

create index ix_sessions_tenant_id_last_accessed on sessions (tenant_id, last_accessed);
