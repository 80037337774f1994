create table openiddict_tokens (
    id varchar(450) not null,
    application_id varchar(450),
    authorization_id varchar(450),
    subject varchar(450),
    type varchar(50),
    status varchar(50),
    payload text,
    creation_date timestamptz,
    expiration_date timestamptz,
    constraint pk_openiddict_tokens primary key (id),
    constraint fk_openiddict_tokens_openiddict_applications foreign key (application_id)
        references openiddict_applications (id) on delete cascade,
    constraint fk_openiddict_tokens_openiddict_authorizations foreign key (authorization_id)
        references openiddict_authorizations (id) on delete cascade
);

comment on table openiddict_tokens is 'Access and refresh tokens, authorization codes';
comment on column openiddict_tokens.payload is
    'Encrypted by the authorization server, or a hash of the token; never a token in clear';
comment on column openiddict_tokens.subject is 'id of a driver, passenger or admin in the user service';

create index ix_openiddict_tokens_application_id on openiddict_tokens (application_id);

create index ix_openiddict_tokens_authorization_id on openiddict_tokens (authorization_id);

create index ix_openiddict_tokens_subject on openiddict_tokens (subject);

-- What the pruning of expired tokens looks for.
create index ix_openiddict_tokens_expiration_date on openiddict_tokens (expiration_date);
