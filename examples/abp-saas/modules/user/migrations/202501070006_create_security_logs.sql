-- No foreign key to users: what happened stays when the user is gone.
create table security_logs (
    id uuid not null default gen_random_uuid(),
    tenant_id varchar(63),
    application_name varchar(96),
    identity varchar(96),
    action varchar(96) not null,
    user_id uuid,
    user_name varchar(256),
    client_id varchar(64),
    correlation_id varchar(64),
    client_ip_address varchar(64),
    browser_info varchar(512),
    creation_time timestamptz not null default current_timestamp,
    extra_properties jsonb not null default '{}',
    constraint pk_security_logs primary key (id)
);

create index ix_security_logs_tenant_id_creation_time on security_logs (tenant_id, creation_time);

create index ix_security_logs_tenant_id_user_id on security_logs (tenant_id, user_id);

create index ix_security_logs_tenant_id_action on security_logs (tenant_id, action);
