-- What an edition or a tenant can have; the same for all, so without tenant_id.
create table feature_groups (
    id uuid not null default gen_random_uuid(),
    name varchar(128) not null,
    display_name varchar(256) not null,
    extra_properties jsonb not null default '{}',
    constraint pk_feature_groups primary key (id),
    constraint uq_feature_groups_name unique (name)
);

create table features (
    id uuid not null default gen_random_uuid(),
    group_name varchar(128) not null,
    name varchar(128) not null,
    parent_name varchar(128),
    display_name varchar(256) not null,
    description varchar(256),
    default_value varchar(256),
    is_visible_to_clients boolean not null default true,
    is_available_to_host boolean not null default true,
    allowed_providers text[],
    value_type jsonb not null default '{}',
    extra_properties jsonb not null default '{}',
    constraint pk_features primary key (id),
    constraint uq_features_name unique (name),
    constraint fk_features_feature_groups foreign key (group_name) references feature_groups (name),
    constraint fk_features_features foreign key (parent_name) references features (name)
);

comment on column features.allowed_providers is 'Who may set it: E editions, T tenants; null: both';

create index ix_features_group_name on features (group_name);

create index ix_features_parent_name on features (parent_name);
