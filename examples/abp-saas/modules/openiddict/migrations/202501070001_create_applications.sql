-- Clients and scopes are the host's: a tenant's database has the tables, and no rows in them.
create table openiddict_applications (
    id uuid not null default gen_random_uuid(),
    application_type varchar(50) not null default 'web',
    client_id varchar(100) not null,
    client_secret varchar(500),
    client_type varchar(50) not null,
    consent_type varchar(50) not null,
    display_name varchar(200),
    client_uri text,
    logo_uri text,
    redirect_uris jsonb not null default '[]',
    post_logout_redirect_uris jsonb not null default '[]',
    allowed_cors_origins jsonb not null default '[]',
    permissions jsonb not null default '[]',
    requirements jsonb not null default '[]',
    properties jsonb not null default '{}',
    settings jsonb not null default '{}',
    creation_time timestamptz not null default current_timestamp,
    creator_id uuid,
    last_modification_time timestamptz,
    last_modifier_id uuid,
    concurrency_stamp varchar(40) not null default gen_random_uuid()::text,
    constraint pk_openiddict_applications primary key (id),
    constraint uq_openiddict_applications_client_id unique (client_id),
    constraint ck_openiddict_applications_client_type check (client_type in ('public', 'confidential')),
    constraint ck_openiddict_applications_client_secret check (client_type = 'confidential' or client_secret is null),
    constraint ck_openiddict_applications_consent_type
        check (consent_type in ('explicit', 'external', 'implicit', 'systematic'))
);

comment on table openiddict_applications is 'OAuth clients';
comment on column openiddict_applications.client_secret is
    'Argon2id hash of the client secret, never the secret; null for public clients';
comment on column openiddict_applications.permissions is
    'Endpoints (ept:), grant types (gt:), response types (rst:) and scopes (scp:) that the client may use';
