create table entity_changes (
    id uuid not null default gen_random_uuid(),
    audit_log_id uuid not null,
    tenant_id varchar(63),
    change_time timestamptz not null,
    change_type varchar(8) not null,
    entity_tenant_id varchar(63),
    entity_id varchar(128) not null,
    entity_type_full_name varchar(512) not null,
    extra_properties jsonb not null default '{}',
    constraint pk_entity_changes primary key (id),
    constraint fk_entity_changes_audit_logs foreign key (audit_log_id) references audit_logs (id) on delete cascade,
    constraint ck_entity_changes_change_type check (change_type in ('created', 'updated', 'deleted'))
);

create index ix_entity_changes_audit_log_id on entity_changes (audit_log_id);

create index ix_entity_changes_tenant_id_entity on entity_changes (tenant_id, entity_type_full_name, entity_id);

create table entity_property_changes (
    id uuid not null default gen_random_uuid(),
    entity_change_id uuid not null,
    tenant_id varchar(63),
    property_name varchar(128) not null,
    property_type_full_name varchar(512) not null,
    original_value varchar(512),
    new_value varchar(512),
    constraint pk_entity_property_changes primary key (id),
    constraint fk_entity_property_changes_entity_changes foreign key (entity_change_id)
        references entity_changes (id) on delete cascade
);

create index ix_entity_property_changes_entity_change_id on entity_property_changes (entity_change_id);
