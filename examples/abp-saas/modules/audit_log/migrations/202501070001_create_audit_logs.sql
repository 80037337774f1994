create table audit_logs (
    id uuid not null default gen_random_uuid(),
    tenant_id varchar(63),
    application_name varchar(96),
    user_id uuid,
    user_name varchar(256),
    impersonator_user_id uuid,
    impersonator_user_name varchar(256),
    impersonator_tenant_id varchar(63),
    execution_time timestamptz not null,
    execution_duration integer not null,
    client_ip_address varchar(64),
    client_name varchar(128),
    client_id varchar(64),
    correlation_id varchar(64),
    browser_info varchar(512),
    http_method varchar(16),
    http_status_code integer,
    url varchar(256),
    exceptions text,
    comments varchar(256),
    extra_properties jsonb not null default '{}',
    constraint pk_audit_logs primary key (id)
);

comment on column audit_logs.tenant_id is 'Name of the tenant; null: the host';
comment on column audit_logs.execution_duration is 'Milliseconds';

create index ix_audit_logs_tenant_id_execution_time on audit_logs (tenant_id, execution_time);

create index ix_audit_logs_tenant_id_user_id_execution_time on audit_logs (tenant_id, user_id, execution_time);
