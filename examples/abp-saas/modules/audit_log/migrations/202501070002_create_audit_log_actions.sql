create table audit_log_actions (
    id uuid not null default gen_random_uuid(),
    audit_log_id uuid not null,
    tenant_id varchar(63),
    service_name varchar(256),
    method_name varchar(128),
    parameters varchar(2000),
    execution_time timestamptz not null,
    execution_duration integer not null,
    extra_properties jsonb not null default '{}',
    constraint pk_audit_log_actions primary key (id),
    constraint fk_audit_log_actions_audit_logs foreign key (audit_log_id) references audit_logs (id) on delete cascade
);

create index ix_audit_log_actions_audit_log_id on audit_log_actions (audit_log_id);

create index ix_audit_log_actions_tenant_id_service_name_method_name
    on audit_log_actions (tenant_id, service_name, method_name, execution_time);
