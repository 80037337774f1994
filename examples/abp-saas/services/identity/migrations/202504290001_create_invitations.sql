create table invitations (
    id uuid not null default gen_random_uuid(),
    tenant_id varchar(63),
    email varchar(256) not null,
    role_id uuid,
    token_hash varchar(256) not null,
    expiration_time timestamptz not null,
    acceptance_time timestamptz,
    creation_time timestamptz not null default current_timestamp,
    creator_id uuid,
    constraint pk_invitations primary key (id),
    constraint fk_invitations_roles foreign key (role_id) references roles (id) on delete set null,
    constraint uq_invitations_token_hash unique (token_hash)
);

comment on column invitations.token_hash is 'Hash of what was mailed, never the token';

create index ix_invitations_role_id on invitations (role_id);

-- One open invitation an address.
create unique index uq_invitations_tenant_id_email on invitations (tenant_id, lower(email)) nulls not distinct
    where acceptance_time is null;
