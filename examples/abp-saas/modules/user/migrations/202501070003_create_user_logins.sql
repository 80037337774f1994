-- Accounts elsewhere, tokens, and what is claimed about a user.
create table user_logins (
    user_id uuid not null,
    login_provider varchar(64) not null,
    provider_key varchar(196) not null,
    provider_display_name varchar(128),
    tenant_id varchar(63),
    constraint pk_user_logins primary key (user_id, login_provider),
    constraint fk_user_logins_users foreign key (user_id) references users (id) on delete cascade
);

create index ix_user_logins_login_provider_provider_key on user_logins (login_provider, provider_key);

create table user_tokens (
    user_id uuid not null,
    login_provider varchar(64) not null,
    name varchar(128) not null,
    value text,
    tenant_id varchar(63),
    constraint pk_user_tokens primary key (user_id, login_provider, name),
    constraint fk_user_tokens_users foreign key (user_id) references users (id) on delete cascade
);

comment on column user_tokens.value is 'Encrypted by the service; never a token in clear';

create table user_claims (
    id uuid not null default gen_random_uuid(),
    user_id uuid not null,
    tenant_id varchar(63),
    claim_type varchar(256) not null,
    claim_value varchar(1024),
    constraint pk_user_claims primary key (id),
    constraint fk_user_claims_users foreign key (user_id) references users (id) on delete cascade
);

create index ix_user_claims_user_id on user_claims (user_id);
