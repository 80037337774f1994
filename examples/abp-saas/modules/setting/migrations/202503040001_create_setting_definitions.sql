create table setting_definitions (
    id uuid not null default gen_random_uuid(),
    name varchar(128) not null,
    display_name varchar(256) not null,
    description varchar(512),
    default_value varchar(2048),
    is_visible_to_clients boolean not null default false,
    is_inherited boolean not null default true,
    is_encrypted boolean not null default false,
    providers text[],
    extra_properties jsonb not null default '{}',
    constraint pk_setting_definitions primary key (id),
    constraint uq_setting_definitions_name unique (name)
);
