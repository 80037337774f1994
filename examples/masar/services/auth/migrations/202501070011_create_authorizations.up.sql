create table openiddict_authorizations (
    id varchar(450) not null,
    application_id varchar(450),
    subject varchar(450),
    status varchar(50),
    type varchar(50),
    scopes text,
    creation_date timestamptz,
    constraint pk_openiddict_authorizations primary key (id),
    constraint fk_openiddict_authorizations_openiddict_applications foreign key (application_id)
        references openiddict_applications (id) on delete cascade
);

comment on table openiddict_authorizations is 'Consent records';
comment on column openiddict_authorizations.subject is 'id of a driver, passenger or admin in the user service';

create index ix_openiddict_authorizations_application_id on openiddict_authorizations (application_id);

create index ix_openiddict_authorizations_subject on openiddict_authorizations (subject);
