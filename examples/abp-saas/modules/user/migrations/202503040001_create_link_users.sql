-- Accounts of one person, also in different tenants: their rows may be in another database, so no foreign keys.
create table link_users (
    id uuid not null default gen_random_uuid(),
    source_user_id uuid not null,
    source_tenant_id varchar(63),
    target_user_id uuid not null,
    target_tenant_id varchar(63),
    creation_time timestamptz not null default current_timestamp,
    constraint pk_link_users primary key (id),
    constraint uq_link_users_source_target
        unique nulls not distinct (source_tenant_id, source_user_id, target_tenant_id, target_user_id)
);

create index ix_link_users_target_tenant_id_target_user_id on link_users (target_tenant_id, target_user_id);
