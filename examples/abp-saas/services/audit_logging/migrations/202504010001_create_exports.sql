create table exports (
    id uuid not null default gen_random_uuid(),
    tenant_id varchar(63),
    user_id uuid not null,
    filter jsonb not null default '{}',
    state varchar(16) not null default 'requested',
    file_name varchar(256),
    creation_time timestamptz not null default current_timestamp,
    completion_time timestamptz,
    constraint pk_exports primary key (id),
    constraint ck_exports_state check (state in ('requested', 'running', 'done', 'failed'))
);

comment on column exports.user_id is 'id of a user in the identity service';

create index ix_exports_tenant_id_creation_time on exports (tenant_id, creation_time);
