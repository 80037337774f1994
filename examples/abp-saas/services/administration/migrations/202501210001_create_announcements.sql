create table announcements (
    id uuid not null default gen_random_uuid(),
    tenant_id varchar(63),
    title varchar(200) not null,
    body text not null,
    visible_from timestamptz not null default current_timestamp,
    visible_until timestamptz,
    creation_time timestamptz not null default current_timestamp,
    creator_id uuid,
    is_deleted boolean not null default false,
    deletion_time timestamptz,
    constraint pk_announcements primary key (id),
    constraint ck_announcements_visible_until check (visible_until is null or visible_until > visible_from)
);

comment on column announcements.tenant_id is 'Name of the tenant; null: the host';

create index ix_announcements_tenant_id_visible_from on announcements (tenant_id, visible_from);
