create table openiddict_applications (
    id varchar(450) not null,
    client_id varchar(100) not null,
    client_secret varchar(500),
    display_name varchar(200),
    permissions text,
    requirements text,
    type varchar(50),
    constraint pk_openiddict_applications primary key (id),
    constraint uq_openiddict_applications_client_id unique (client_id)
);

comment on table openiddict_applications is 'OAuth clients';
comment on column openiddict_applications.client_secret is
    'Hash of the client secret, never the secret itself; null for public clients';
comment on column openiddict_applications.permissions is 'JSON array';
comment on column openiddict_applications.requirements is 'JSON array';
