create table openiddict_authorizations (
    id uuid not null default gen_random_uuid(),
    application_id uuid,
    subject varchar(400),
    status varchar(50),
    type varchar(50),
    scopes jsonb not null default '[]',
    properties jsonb not null default '{}',
    creation_date timestamptz not null default current_timestamp,
    concurrency_stamp varchar(40) not null default gen_random_uuid()::text,
    constraint pk_openiddict_authorizations primary key (id),
    constraint fk_openiddict_authorizations_openiddict_applications foreign key (application_id)
        references openiddict_applications (id) on delete cascade
);

comment on table openiddict_authorizations is 'Consent records';

create index ix_openiddict_authorizations_application_id_status_subject_type
    on openiddict_authorizations (application_id, status, subject, type);

create table openiddict_tokens (
    id uuid not null default gen_random_uuid(),
    application_id uuid,
    authorization_id uuid,
    reference_id varchar(100),
    subject varchar(400),
    status varchar(50),
    type varchar(50),
    payload text,
    properties jsonb not null default '{}',
    creation_date timestamptz not null default current_timestamp,
    expiration_date timestamptz,
    redemption_date timestamptz,
    concurrency_stamp varchar(40) not null default gen_random_uuid()::text,
    constraint pk_openiddict_tokens primary key (id),
    constraint fk_openiddict_tokens_openiddict_applications foreign key (application_id)
        references openiddict_applications (id) on delete cascade,
    constraint fk_openiddict_tokens_openiddict_authorizations foreign key (authorization_id)
        references openiddict_authorizations (id) on delete cascade
);

comment on table openiddict_tokens is 'Access and refresh tokens, authorization codes';
comment on column openiddict_tokens.payload is
    'Encrypted by the authorization server, or a hash of the token; never a token in clear';

create index ix_openiddict_tokens_application_id_status_subject_type
    on openiddict_tokens (application_id, status, subject, type);

create index ix_openiddict_tokens_authorization_id on openiddict_tokens (authorization_id);

create index ix_openiddict_tokens_reference_id on openiddict_tokens (reference_id);
